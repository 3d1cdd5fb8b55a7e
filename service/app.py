"""The BentoML service, and the only file that knows BentoML."""
# ruff: noqa: E402 - what comes first must

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version

gc.disable()  # while modules are loaded: it would find nothing, in a sixth of the time that they take

from service.metrics_folder import metrics_folder

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.update(metrics_folder(os.environ))

import anyio.to_thread
import bentoml
import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus

from service.access.door import check_door
from service.access.gate import Gate
from service.api import make_api, set_up_jobs
from service.connections import Connection, use_connections
from service.edge import Edge
from service.errors import AccessError
from service.observability.logs import set_up_logs
from service.observability.requests import Observed
from service.observability.traces import set_up_traces
from service.pipeline import Pipeline
from service.settings import Settings
from service.site_key import read_site_key

_LOOK_S = 1.0  # between the supervisor's looks after its workers


def look_after_workers() -> None:
    """Have BentoML's supervisor replace a dead worker within a second: it looks every ten, and has no option for it.

    The supervisor imports the service before it makes its arbiter.
    """
    if not isinstance(circus.create_standalone_arbiter, partial):
        circus.create_standalone_arbiter = partial(circus.create_standalone_arbiter, check_delay=_LOOK_S)


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
api = make_api(_version())
if logging.getLogger("uvicorn.error").handlers:  # BentoML has set up a server's logs: this is one, or its supervisor
    set_up_logs(Settings().log_format)


# BentoML's own log lines, metrics and spans hold the path that was sent: ours are in service.observability.
@bentoml.service(
    name="radiolucent",
    workers=1,
    traffic={"timeout": 300},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(api, path="/")
class Radiolucent:
    """Loads and warms up every bundle before the server accepts requests."""

    def __init__(self) -> None:
        settings = Settings()
        self._send_last_spans = set_up_traces(_version())
        api.state.gate = Gate(settings, read_site_key(settings.site_key))
        Connection.stall_s = settings.stall_s
        api.state.pipeline = Pipeline(settings)
        set_up_jobs(api, settings)
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


# BentoML's protocol describes an instance where a class is meant.
Radiolucent.add_asgi_middleware(Observed)  # pyright: ignore[reportArgumentType]
Radiolucent.add_asgi_middleware(Edge, api=api)  # pyright: ignore[reportArgumentType]
gc.enable()
