"""The worker of the study queue: fetch, answer, store, each stage once, whoever dies in between.

Stored results are what the archive sees exactly once: their UIDs depend on input and model alone, so that a stage
that runs twice after a crash stores instances that the archive has already, which is no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic

import anyio.to_thread

from service.composing import JobHandle
from service.errors import (
    Cancelled,
    Poisoned,
    RadiolucentError,
    RemoteRefused,
    RequestError,
    StageLost,
)
from service.idle import Idle
from service.instance_file import InstanceFile
from service.observability import STUDIES, STUDIES_WAITING, logger
from service.schemas import Problem
from service.studies.claims import Name
from service.studies.patience import Patience
from service.studies.rows import Stage, StudyJob, StudyRequest
from service.studies.store import StudyStore
from service.studies.turns import Turns

_SWEEP_S = 30.0  # between deletions of what expired
_FETCHED, _ANSWERED = 0.1, 0.9  # shares of progress


@dataclass(frozen=True, slots=True)
class Made:
    """The answer to a study.

    Attributes:
        objects: DICOM files (PS3.10), encoded while they are read, in a thread; none where no model fits.
        summary: JSON for whoever asks for the job.
    """

    objects: Iterable[bytes]
    summary: str


@dataclass(frozen=True, slots=True)
class Steps:
    """What the worker does; `fetch` and `store` block and run in threads.

    Attributes:
        fetch: the instances of a series of an archive.
        answer: model, explanation, result objects; tells its progress 0..1, may run again after a crash.
        store: results to the target; storing what is there already must be no error.
    """

    fetch: Callable[[StudyRequest], Iterator[bytes]]
    answer: Callable[[StudyRequest, InstanceFile, JobHandle], Awaitable[Made]]
    store: Callable[[StudyRequest, Iterable[bytes]], None]


class _Run:
    """One job in hand: its progress, and whether it is still ours."""

    def __init__(self, job: StudyJob, owner: str) -> None:
        self.job, self.owner, self.attempts = job, owner, job.attempts
        self.share, self.cancelled = 0.0, False

    def tell(self, share: float) -> None:
        """Progress of the answer, 0..1."""
        self.share = _FETCHED + (_ANSWERED - _FETCHED) * share

    def watched(self, contents: Iterable[bytes]) -> Iterator[bytes]:
        """The same instances, until the job is no longer ours."""
        for content in contents:
            if self.cancelled:
                raise Cancelled
            yield content

    def must(self, ours: bool) -> None:
        """Raises Cancelled where a claim was lost."""
        if not ours:
            self.cancelled = True
            raise Cancelled


class StudyWorker:
    """Claims and runs studies until it is stopped.

    Args:
        store: the queue.
        steps: what to do.
        patience: how often.
        lanes: jobs at once: while one is answered others are fetched and stored.
    """

    def __init__(self, store: StudyStore, steps: Steps, patience: Patience | None = None, lanes: int = 2) -> None:
        self._store, self._steps, self._patience = store, steps, patience or Patience()
        self._lanes = lanes
        self._turns = Turns()
        self._idle = Idle()
        self._tasks: list[asyncio.Task[None]] = []
        self._runs: set[_Run] = set()
        self._swept = -_SWEEP_S

    def start(self) -> None:
        """Begin, in the running event loop; does nothing where it runs already."""
        self._tasks = [task for task in self._tasks if not task.done()]
        missing = self._lanes - len(self._tasks)
        self._tasks += [asyncio.get_running_loop().create_task(self._work()) for _ in range(missing)]

    def look(self) -> None:
        """A job was stored: begin with it at once where a lane is free."""
        self.start()
        self._idle.end()

    async def stop(self) -> None:
        """Give up; the jobs in hand go back to the queue."""
        for run in list(self._runs):
            run.cancelled = True
            await anyio.to_thread.run_sync(self._store.claims.release, run.job.id, run.owner)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        owner = secrets.token_urlsafe(32)
        while True:
            try:
                job = await anyio.to_thread.run_sync(self._next, owner)
            except Exception:  # noqa: BLE001 - the database may be away for a while; the log has it
                logger.exception("the studies' database failed")
                job = None
            if job is None:
                await self._idle.rest()
                continue
            await self._guarded(_Run(job, owner))

    def _next(self, owner: str) -> StudyJob | None:
        if monotonic() - self._swept > _SWEEP_S:
            self._swept = monotonic()
            self._store.sweep()
        for status, count in self._store.counts().items():
            STUDIES_WAITING.labels(status).set(count)
        return self._store.claims.claim(owner)

    async def _guarded(self, run: _Run) -> None:
        """Run a job; whatever breaks is this job's, not the worker's."""
        self._runs.add(run)
        beat = asyncio.create_task(self._beat(run))
        try:
            async with self._turns.turn(alone=run.job.crashes > 0):
                await self._run(run)
        except Cancelled:
            STUDIES.labels("cancelled").inc()
        except RadiolucentError as error:
            await self._failed(run, error)
        except Exception as error:  # noqa: BLE001
            where = "".join(traceback.format_tb(error.__traceback__))  # without its message, which may quote a header
            logger.error("study %s failed: %s\n%s", run.job.label or run.job.id[:8], type(error).__name__, where)
            await self._failed(run, RadiolucentError("the fault is ours; the log has more"))
        finally:
            beat.cancel()
            self._runs.discard(run)

    async def _run(self, run: _Run) -> None:
        job, request, claims = run.job, run.job.asked(), self._store.claims
        run.must(await anyio.to_thread.run_sync(claims.begin, job.id, run.owner))
        if job.crashes > self._patience.crashes:
            raise Poisoned(f"the service stopped {job.crashes} times while this study ran; it is not tried again")
        stage = job.stage
        if stage == "waiting":
            await self._advance(run, "fetched", "source", self._steps.fetch(request), None)
            stage = "fetched"
        if stage == "fetched":
            run.tell(0.0)
            handle = JobHandle(run.tell, lambda: run.cancelled)
            made = await self._steps.answer(request, claims.file(job.id, "source"), handle)
            await self._advance(run, "answered", "results", made.objects, made.summary)
        run.share = _ANSWERED
        results = claims.file(job.id, "results")
        kept = await anyio.to_thread.run_sync(results.size)
        if kept and request.target:
            await anyio.to_thread.run_sync(self._steps.store, request, run.watched(results))
            kept = 0
        run.must(await anyio.to_thread.run_sync(claims.finish, job.id, run.owner, kept))
        STUDIES.labels("done").inc()

    async def _advance(
        self, run: _Run, stage: Stage, name: Name, contents: Iterable[bytes], summary: str | None
    ) -> None:
        """Write a stage in a thread, and note it."""
        write = partial(self._store.claims.advance, run.job.id, run.owner, stage, name, summary=summary)
        run.must(await anyio.to_thread.run_sync(write, run.watched(contents)))
        run.attempts = 1

    async def _failed(self, run: _Run, error: RadiolucentError) -> None:
        """Try again later, or never."""
        job, claims = run.job, self._store.claims
        problem = Problem.of(error, job.label or job.id[:8]).model_dump_json()
        lost = isinstance(error, StageLost)
        final = isinstance(error, RequestError | RemoteRefused | Poisoned) or (lost and not job.asked().source)
        try:
            if final or self._patience.ends(error, run.attempts):
                done = await anyio.to_thread.run_sync(claims.bury, job.id, run.owner, problem)
                outcome = "dead"
            else:
                delay = self._patience.delay(run.attempts)
                again = "waiting" if lost else None
                done = await anyio.to_thread.run_sync(claims.retry, job.id, run.owner, delay, problem, again)
                asyncio.get_running_loop().call_later(delay, self._idle.end)
                outcome = "retried"
        except Exception:  # noqa: BLE001 - the lease will run out, and the job be taken again
            return logger.exception("the studies' database failed")
        STUDIES.labels(outcome if done else "cancelled").inc()

    async def _beat(self, run: _Run) -> None:
        """Renew the lease; a job that is no longer ours is given up."""
        while not run.cancelled:
            await asyncio.sleep(min(0.5, self._store.lease / 4))
            try:
                ours = await anyio.to_thread.run_sync(self._store.claims.renew, run.job.id, run.owner, run.share)
            except Exception:  # noqa: BLE001 - as above
                logger.exception("the studies' database failed")
                continue
            run.cancelled = run.cancelled or not ours
