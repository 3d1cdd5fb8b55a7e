"""The BentoML service, and the only file that knows BentoML."""
# ruff: noqa: E402 - what comes first must

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from importlib.metadata import PackageNotFoundError, version

gc.disable()  # while modules are loaded: it would find nothing, in a sixth of the time that they take

from service.memory import few_pools
from service.server_folder import metrics_folder, server_folder

few_pools()
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
_FOLDER = server_folder(os.environ)
if _FOLDER is not None:
    os.environ.update(metrics_folder(_FOLDER))

from typing import TYPE_CHECKING, Any

import anyio.to_thread
import bentoml
import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.http import traffic
from bentoml._internal.utils import circus

from service.access.door import check_door
from service.access.gate import Gate
from service.access.rates import Limits
from service.access.shared_rates import rates_of
from service.api import make_api, set_up_jobs
from service.connections import Connection, use_connections
from service.edge import Edge
from service.errors import AccessError
from service.observability.logs import set_up_logs
from service.observability.requests import Observed
from service.observability.traces import set_up_traces
from service.pipeline import Pipeline
from service.settings import Settings
from service.shared_graphs import forget_graphs
from service.site_key import read_site_key
from service.workers import cores_here, count_workers, cuda_devices, device_of, worker_settings

if TYPE_CHECKING:
    from circus.watcher import Watcher
    from starlette.types import ASGIApp

_LOOK_S = 1.0  # between the supervisor's looks after its workers


def look_after_workers() -> None:
    """Have BentoML's supervisor replace a dead worker within a second: it looks every ten, and has no option for it.

    In a container it replaces none, so that the container ends with its only one; of several the others would go on.
    The supervisor imports the service before it makes its arbiter.
    """
    make = circus.create_standalone_arbiter

    def make_watchful(watchers: list[Watcher], **options: Any) -> Any:  # noqa: ANN401 - circus has no types
        for watcher in watchers:
            watcher.respawn = watcher.respawn or watcher.numprocesses > 1
        return make(watchers, check_delay=_LOOK_S, **options)

    if make.__module__ != __name__:
        circus.create_standalone_arbiter = make_watchful


def drop_time_limit() -> None:
    """Have BentoML leave a request's time to us (`service.edge.Guard`): it cannot be told to.

    Its limit keeps what belongs to a request until the limit is over, answered or not.
    """
    assert traffic.TimeoutMiddleware  # noqa: S101 - where it has another name, this does nothing
    traffic.TimeoutMiddleware = _unlimited  # pyright: ignore[reportAttributeAccessIssue]


def _unlimited(app: ASGIApp, timeout: float) -> ASGIApp:
    return app


def _version() -> str:
    try:
        return version("radiolucent")
    except PackageNotFoundError:  # served from a checkout or a bento, not installed
        return "0+checkout"


def _host() -> str | None:
    """Where this process is about to listen: BentoML's command says it, and the socket of its workers; else None."""
    command = click.get_current_context(silent=True)
    given = command.params if command else {}
    if "fd" in given:
        with socket.socket(fileno=os.dup(given["fd"])) as opened:
            return "localhost" if opened.family == socket.AF_UNIX else opened.getsockname()[0]
    if {"host", "port"} <= given.keys():
        return given["host"] or BentoMLContainer.http.host.get()
    return None


def _check_door() -> None:
    host = _host()
    try:
        if host is not None:
            check_door(Settings(), host)
    except AccessError as error:
        sys.exit(str(error))


_check_door()
use_connections()
look_after_workers()
drop_time_limit()
api = make_api(_version())
_SETTINGS, _CORES, _DEVICES = Settings(), cores_here(), cuda_devices(os.environ)
_WORKERS = count_workers(_SETTINGS, _DEVICES, _CORES)
_SHARED = _FOLDER if _WORKERS > 1 else None
if logging.getLogger("uvicorn.error").handlers:  # BentoML has set up a server's logs: this is one, or its supervisor
    set_up_logs(_SETTINGS.log_format)


# BentoML's own log lines, metrics and spans hold the path that was sent: ours are in service.observability.
@bentoml.service(
    name="radiolucent",
    workers=_WORKERS,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(api, path="/")
class Radiolucent:
    """Loads and warms up every bundle before the server accepts requests."""

    def __init__(self) -> None:
        worker = bentoml.server_context.worker_index or 1
        os.environ.update(device_of(worker, _WORKERS, _DEVICES))
        settings = worker_settings(_SETTINGS, _WORKERS, _CORES)
        self._send_last_spans = set_up_traces(_version())
        rates = rates_of(Limits(settings.rate, settings.max_concurrent), _SHARED, worker, _WORKERS)
        api.state.gate = Gate(settings, read_site_key(settings.site_key), rates)
        Connection.stall_s = settings.stall_s
        api.state.pipeline = Pipeline(settings, _SHARED)
        set_up_jobs(api, settings, has_port=worker == 1)
        gc.collect()
        gc.freeze()  # modules and models stay: collections while DICOM objects are made need not go through them

    @bentoml.on_startup
    async def start(self) -> None:
        """Begin with what an earlier process left unfinished; open the C-STORE door where there is one."""
        api.state.job_worker.start()
        api.state.desk.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Put back what is in hand."""
        await api.state.desk.stop()
        await api.state.job_worker.stop()
        await anyio.to_thread.run_sync(self._send_last_spans)
        if _SHARED is not None:
            await anyio.to_thread.run_sync(forget_graphs, _SHARED)


# BentoML's protocol describes an instance where a class is meant.
Radiolucent.add_asgi_middleware(Observed)  # pyright: ignore[reportArgumentType]
Radiolucent.add_asgi_middleware(Edge, api=api)  # pyright: ignore[reportArgumentType]
gc.enable()
