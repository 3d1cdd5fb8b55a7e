"""The BentoML service, and the only file that knows BentoML.

BentoML's supervisor loads this module, too, and needs little of it: what workers answer with is in `service.serving`,
which they load.
"""
# ruff: noqa: E402 - what comes first must

from __future__ import annotations

import gc
import logging
import os
import socket
import sys

gc.disable()  # while modules are loaded: it would find nothing, in a sixth of the time that they take

from service.memory import few_pools
from service.server_folder import metrics_folder, server_folder

few_pools()
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # workers have it before they load NumPy (docs/adr/0011)
_FOLDER = server_folder(os.environ)
if _FOLDER is not None:
    os.environ.update(metrics_folder(_FOLDER))

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import bentoml
import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server import http
from bentoml._internal.server.http import traffic
from bentoml._internal.utils import circus
from pydantic import ValidationError
from pydantic_settings import SettingsError
from starlette.staticfiles import StaticFiles

from service.access.door import check_door
from service.commands import reason_of, unusable
from service.connections import use_connections
from service.errors import AccessError
from service.observability import logger
from service.observability.logs import set_up_logs
from service.settings import Settings, unknown_settings
from service.shared_graphs import forget_graphs
from service.starting import check_port, starting
from service.workers import cores_here, count_workers, cuda_devices, device_of, worker_settings

if TYPE_CHECKING:
    from circus.watcher import Watcher
    from starlette.types import ASGIApp, Receive, Scope, Send

_SWAGGER_UI = Path(http.__file__).parent.parent / "static_content"  # BentoML's copy, which service.documentation shows
_LOOK_S = 1.0  # between the supervisor's looks after its workers


def look_after_workers() -> None:
    """Have BentoML's supervisor replace a dead worker within a second: it looks every ten, and has no option for it.

    Where the first that ends could not start, it replaces none, and ends (`_end_server`). In a container that BentoML
    made it replaces none, either, so that the container ends with its only one; of several the others would go on.
    The supervisor imports the service before it makes its arbiter.
    """
    make = circus.create_standalone_arbiter

    def make_watchful(watchers: list[Watcher], **options: Any) -> Any:  # noqa: ANN401 - circus has no types
        for watcher in watchers:
            watcher.respawn = watcher.respawn or watcher.numprocesses > 1
            watcher.hooks["after_reap"] = _end_server
        return make(watchers, check_delay=_LOOK_S, **options)

    if make.__module__ != __name__:
        circus.create_standalone_arbiter = make_watchful


def _end_server(*, watcher: Watcher, exit_code: int, **_: object) -> None:
    """The first worker has ended: where it could not start (`service.starting`), the server ends, too.

    circus calls it, and ends by itself, with an exception, where no worker is wanted any more.
    """
    del watcher.hooks["after_reap"]
    if exit_code == os.EX_CONFIG:
        watcher.numprocesses = 0
        if command := click.get_current_context(silent=True):
            command.call_on_close(partial(sys.exit, 1))


def drop_time_limit() -> None:
    """Have BentoML leave a request's time to us (`service.edge.Guard`): it cannot be told to.

    Its limit keeps what belongs to a request until the limit is over, answered or not.
    """
    assert traffic.TimeoutMiddleware  # noqa: S101 - where it has another name, this does nothing
    traffic.TimeoutMiddleware = _unlimited  # pyright: ignore[reportAttributeAccessIssue]


def _unlimited(app: ASGIApp, timeout: float) -> ASGIApp:
    return app


def _read_settings() -> Settings:
    try:
        settings = Settings()
        _check_address(settings)
    except (ValidationError, SettingsError) as error:
        sys.exit(f"Radiolucent does not start, for its settings (docs/settings.md): {unusable(error)}")
    except (AccessError, OSError) as error:
        sys.exit(f"Radiolucent does not start: {reason_of(error)}")
    return settings


def _check_address(settings: Settings) -> None:
    """Where this process is about to listen: BentoML's command says it, and the socket of its workers.

    Raises:
        AccessError: nobody may listen there.
        OSError: nobody can.
    """
    command = click.get_current_context(silent=True)
    given = command.params if command else {}
    if "fd" in given:
        with socket.socket(fileno=os.dup(given["fd"])) as opened:
            check_door(settings, "localhost" if opened.family == socket.AF_UNIX else opened.getsockname()[0])
    elif {"host", "port"} <= given.keys():
        host = given["host"] or BentoMLContainer.http.host.get()
        check_door(settings, host)
        check_port(host, given["port"] or BentoMLContainer.http.port.get())


_SETTINGS = _read_settings()
use_connections()
look_after_workers()
drop_time_limit()
_CORES, _DEVICES = cores_here(), cuda_devices(os.environ)
_WORKERS = count_workers(_SETTINGS, _DEVICES, _CORES)
_SHARED = _FOLDER if _WORKERS > 1 else None
if logging.getLogger("uvicorn.error").handlers:  # BentoML has set up a server's logs: this is one, or its supervisor
    set_up_logs(_SETTINGS.log_format)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The API, for BentoML to mount."""
    from service.serving import api

    await api(scope, receive, send)


class Around:
    """What stands around all that is answered, BentoML's own routes too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._around: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":  # the application's start, which makes the worker, and its end
            await self._app(scope, receive, send)
            return
        if self._around is None:
            from service.serving import around

            self._around = around(self._app)
        await self._around(scope, receive, send)


# BentoML's own log lines, metrics and spans hold the path that was sent: ours are in service.observability.
@bentoml.service(
    name="radiolucent",
    workers=_WORKERS,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(answer, path="/")  # the last: BentoML's routes behind it are not reached
@bentoml.asgi_app(StaticFiles(directory=_SWAGGER_UI), path="/static_content")
class Radiolucent:
    """Loads all that it answers with before the server accepts requests."""

    def __init__(self) -> None:
        gc.disable()
        number = bentoml.server_context.worker_index or 1
        for name in unknown_settings(os.environ) if number == 1 else ():
            logger.warning("%s is no setting, and does nothing: see docs/settings.md", name)
        os.environ.update(device_of(number, _WORKERS, _DEVICES))
        settings = worker_settings(_SETTINGS, _WORKERS, _CORES)
        with starting(), ThreadPoolExecutor(1) as aside:
            from service.loading import load_served

            models = aside.submit(load_served, settings, _SHARED)
            from service.serving import Serving, Worker  # takes about as long

            self._serving = Serving(Worker(settings, number, _WORKERS, _SHARED), models.result())
        gc.collect()
        gc.freeze()  # modules and models stay: collections while DICOM objects are made need not go through them
        gc.enable()

    @bentoml.on_startup
    async def start(self) -> None:
        """See `Serving.start`."""
        with starting():
            await self._serving.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """See `Serving.stop`."""
        await self._serving.stop()
        if _SHARED is not None:
            await anyio.to_thread.run_sync(forget_graphs, _SHARED)


# BentoML's protocol describes an instance where a class is meant.
Radiolucent.add_asgi_middleware(Around)  # pyright: ignore[reportArgumentType]
gc.enable()
