"""What a worker answers with. These modules take seconds to load, so `service.app` has workers load them only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import anyio.to_thread
from starlette.types import ASGIApp

from service.access.gate import Gate
from service.access.rates import Limits
from service.access.shared_rates import rates_of
from service.api import make_api, set_up_jobs
from service.connections import Connection
from service.edge import Edge
from service.observability.requests import Observed
from service.observability.traces import set_up_traces
from service.pipeline import Pipeline
from service.registry import Registry
from service.settings import Settings
from service.site_key import read_site_key


def _version() -> str:
    try:
        return version("radiolucent")
    except PackageNotFoundError:  # served from a checkout or a bento, not installed
        return "0+checkout"


api = make_api(_version())


def around(app: ASGIApp) -> ASGIApp:
    """An application with all that stands around it: who may ask, and what is observed."""
    return Observed(Edge(app, api))


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the server's processes.

    Attributes:
        settings: with this worker's part of the machine.
        number: from 1.
        count: of workers.
        shared: folder of what they share; None where there is one.
    """

    settings: Settings
    number: int
    count: int
    shared: Path | None


class Serving:
    """Everything that is open while a worker answers.

    Args:
        worker: which of the processes this is.
        registry: every model, warmed up.
    """

    def __init__(self, worker: Worker, registry: Registry) -> None:
        settings = worker.settings
        self._send_last_spans = set_up_traces(_version())
        rates = rates_of(Limits(settings.rate, settings.max_concurrent), worker.shared, worker.number, worker.count)
        api.state.gate = Gate(settings, read_site_key(settings.site_key), rates)
        Connection.stall_s = settings.stall_s
        api.state.pipeline = Pipeline(settings, registry)
        set_up_jobs(api, settings, has_port=worker.number == 1)

    async def start(self) -> None:
        """Begin with what an earlier process left unfinished; open the C-STORE door where there is one."""
        api.state.job_worker.start()
        api.state.desk.start()

    async def stop(self) -> None:
        """Put back what is in hand."""
        await api.state.desk.stop()
        await api.state.job_worker.stop()
        await anyio.to_thread.run_sync(self._send_last_spans)
