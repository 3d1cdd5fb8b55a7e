"""The worker that runs jobs, one at a time, behind everything that somebody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass
from time import monotonic
from typing import Any

import anyio.to_thread

from service.composing import JobHandle, Wish
from service.errors import Cancelled, RadiolucentError
from service.explainers.base import Options
from service.idle import Idle
from service.jobs.store import ATTEMPTS, Job, JobStore
from service.observability import JOBS, JOBS_WAITING, logger
from service.pipeline import Pipeline
from service.schemas import Problem
from service.uploads import Upload

_BEAT_S = 0.5  # between signs of life
_SWEEP_S = 30.0  # between deletions of what expired


def request_of(model: str, wish: Wish) -> str:
    """What is asked for, as the database keeps it."""
    fields = {"model": model, "method": wish.method, "target": wish.target, "against": wish.against}
    shown = {"overlay": wish.overlay, "picture": wish.picture, "saliency": wish.saliency}
    return json.dumps(fields | shown | {"options": wish.options.model_dump()})


def read_request(request: str) -> tuple[str, Wish]:
    """The reverse of `request_of`."""
    fields: dict[str, Any] = json.loads(request)
    options = Options.model_validate(fields.pop("options"))
    model: str = fields.pop("model")
    target: list[str] = fields.pop("target")
    return model, Wish(**fields, target=tuple(target), options=options)


@dataclass(slots=True)
class _Progress:
    """Shared between the worker's task and the thread that explains."""

    share: float = 0.0
    cancelled: bool = False

    def tell(self, share: float) -> None:
        self.share = share


class JobWorker:
    """Claims and runs jobs until it is stopped."""

    def __init__(self, store: JobStore, pipeline: Pipeline) -> None:
        self._store, self._pipeline = store, pipeline
        self._owner = secrets.token_urlsafe(32)
        self._idle = Idle()
        self._task: asyncio.Task[None] | None = None
        self._swept = 0.0
        self._current: tuple[Job, _Progress] | None = None

    def start(self) -> None:
        """Begin, in the running event loop; does nothing where it runs already."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def look(self) -> None:
        """A job was stored: begin with it at once where nothing else is in hand."""
        self.start()
        self._idle.end()

    async def stop(self) -> None:
        """Give up; the job in hand goes back to the queue."""
        if self._task is None:
            return
        if self._current is not None:
            job, progress = self._current
            progress.cancelled = True
            await anyio.to_thread.run_sync(self._store.release, job.id, self._owner)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            try:
                job = await anyio.to_thread.run_sync(self._next)
            except Exception:  # noqa: BLE001 - the database may be away for a while; the log has it
                logger.exception("the jobs' database failed")
                job = None
            if job is None:
                await self._idle.rest()
                continue
            await self._run(job)

    def _next(self) -> Job | None:
        self._sweep()
        JOBS_WAITING.set(self._store.waiting())
        return self._store.claim(self._owner)

    def _sweep(self) -> None:
        if monotonic() - self._swept > _SWEEP_S:
            self._swept = monotonic()
            JOBS.labels("expired").inc(self._store.delete_expired())

    async def _run(self, job: Job) -> None:
        progress = _Progress()
        self._current = (job, progress)
        beat = asyncio.create_task(self._beat(job, progress))
        try:
            if job.attempts > ATTEMPTS:
                raise RadiolucentError(
                    f"the service stopped {ATTEMPTS} times while this job ran; it is not tried again"
                )
            model, wish = read_request(job.request)
            files = await anyio.to_thread.run_sync(self._store.files, job.id)
            uploads = [Upload(name, content) for name, content in files]
            handle = JobHandle(progress.tell, lambda: progress.cancelled)
            result = await self._pipeline.answer(job.id, model, uploads, wish, job=handle)
            await self._finish(job, "done", result.model_dump_json())
        except Cancelled:
            JOBS.labels("cancelled").inc()
        except RadiolucentError as error:
            await self._finish(job, "failed", Problem.of(error, job.id).model_dump_json())
        except Exception:  # noqa: BLE001 - whatever broke is this job's, not the worker's
            logger.exception("job %s failed", _short(job.id))
            fault = RadiolucentError("the fault is ours; the log has more under the first characters of this job's id")
            await self._finish(job, "failed", Problem.of(fault, _short(job.id)).model_dump_json())
        finally:
            beat.cancel()
            self._current = None

    async def _finish(self, job: Job, status: str, answer: str) -> None:
        outcome = "done" if status == "done" else "failed"
        kept = await anyio.to_thread.run_sync(self._store.finish, job.id, self._owner, outcome, answer)
        JOBS.labels(outcome if kept else "cancelled").inc()

    async def _beat(self, job: Job, progress: _Progress) -> None:
        """Renew the lease, and sweep; a job that is no longer ours, or expired, is given up."""
        while not progress.cancelled:
            await asyncio.sleep(_BEAT_S)
            try:
                mine = await anyio.to_thread.run_sync(self._store.renew, job.id, self._owner, progress.share)
                progress.cancelled = progress.cancelled or not mine
                await anyio.to_thread.run_sync(self._sweep)
            except Exception:  # noqa: BLE001 - as above
                logger.exception("the jobs' database failed")


def _short(job: str) -> str:
    """What the log may hold of an id that gives access to a result."""
    return job[:8]
