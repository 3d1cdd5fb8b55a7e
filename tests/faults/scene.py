"""A fault's stage: the real service with a model that breaks on marked images, and what is written down of a run."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import httpx
from brittle import Mark, marked, write_brittle_into
from serving import Service

from tests.faults.load import MODEL, SILENT, Load
from tests.processes import free_port

WARM_S, AFTER_S = 3.0, 4.0  # of load before a fault and after it is over
_WORK = 500  # rows of the matrix that every batch multiplies: some 10 ms
_RULES = '[[rule]]\nname = "all"\nmodel = "brittle"\nmodality = "MR"\n'


@dataclass(frozen=True, slots=True)
class Finding:
    """What a fault did.

    Attributes:
        fault: its name.
        requests: sent while it was tried.
        outcomes: how many by HTTP status and kind of problem, or by the way that a connection failed.
        wrong: answers that belong to another request.
        recovery_s: from the fault to the first good answer after the last failed one; 0: none failed.
        claims: what had to hold, and whether it did.
        figures: what else was measured.
    """

    fault: str
    requests: int
    outcomes: dict[str, int]
    wrong: int
    recovery_s: float
    claims: dict[str, bool]
    figures: dict[str, float | int] = field(default_factory=dict[str, float | int])

    @property
    def passed(self) -> bool:
        return all(self.claims.values())


def finding(
    fault: str, seen: Load, since: float, claims: Mapping[str, bool], figures: Mapping[str, float | int] | None = None
) -> Finding:
    """Adds what must hold under every fault: every request has one end, and every answer is its own request's."""
    wrong = sum(one.wrong for one in seen.exchanges)
    silent = sum(one.outcome == SILENT for one in seen.exchanges)
    everywhere = {"every request ended once": silent == 0, "every answer is to its own request": wrong == 0}
    recovery = round(seen.recovery(since), 2)
    return Finding(
        fault,
        len(seen.exchanges),
        seen.outcomes(),
        wrong,
        recovery,
        everywhere | {"recovered within 10 s": recovery < 10} | dict(claims),
        dict(figures or {}),
    )


@contextlib.asynccontextmanager
async def stage(
    settings: Mapping[str, str] | None = None, around: Callable[[Path], Sequence[str]] = lambda folder: ()
) -> AsyncIterator[Service]:
    """The service with its state in a folder of its own, which `around` is told; stopped when the block ends."""
    with tempfile.TemporaryDirectory(prefix="radiolucent-faults-") as name:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "rules.toml").write_text(_RULES)
        write_brittle_into(folder / "models", MODEL, work=_WORK)
        fixed = {
            "RADIOLUCENT_MODELS": str(folder / "models"),
            "RADIOLUCENT_RULES": str(folder / "rules.toml"),
            "RADIOLUCENT_DEVICE": "cpu",
            "RADIOLUCENT_JOB_LEASE_S": "3",
            "XDG_STATE_HOME": str(folder / "state"),
        }
        service = Service(free_port(), folder / "log.txt", fixed | dict(settings or {}), around(folder))
        await asyncio.to_thread(service.start)
        try:
            yield service
        finally:
            await asyncio.to_thread(service.stop)


def client_of(service: Service) -> httpx.AsyncClient:
    """For what a scenario asks besides the load."""
    return httpx.AsyncClient(base_url=service.address, timeout=60)


async def until(condition: Callable[[], bool], patience_s: float) -> float:
    """Wait; returns the seconds that it took, infinity where it did not come true."""
    start = perf_counter()
    while not condition():
        if perf_counter() - start > patience_s:
            return float("inf")
        await asyncio.sleep(0.05)
    return perf_counter() - start


async def begin_job(client: httpx.AsyncClient, mark: Mark | None = None) -> httpx.Response:
    """Ask for an explanation that takes some seconds, as a job."""
    fields = {"model": MODEL, "method": "occlusion"}
    return await client.post("/v1/explanations", data=fields, files=[("images", ("job.png", marked(mark)))])


async def job_end(client: httpx.AsyncClient, location: str, patience_s: float = 120.0) -> str:
    """How a job ended: its status; `lost` where it is unknown, `waiting` where it does not end."""
    start = perf_counter()
    while perf_counter() - start < patience_s:
        with contextlib.suppress(httpx.TransportError):
            answer = await client.get(location)
            if answer.status_code == 404:
                return "lost"
            if answer.status_code == 200 and answer.json()["status"] in ("done", "failed"):
                return answer.json()["status"]
        await asyncio.sleep(0.2)
    return "waiting"
