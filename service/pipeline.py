"""The composer: files in, answers out. Decoding and rendering run in threads, forward passes in the batcher."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from threading import Event, Semaphore
from time import monotonic, perf_counter
from typing import TypeVar

import cv2

from service.admission import Admission
from service.batching import BATCH_S, Answer, Batcher
from service.checking import check_cost, check_request
from service.composing import JobHandle, Read, Wish, explain_all, observe, set_failed_aside
from service.errors import ModelFailed, Overloaded
from service.explainers.base import Method
from service.images.pixels import Budget
from service.loading import load_served
from service.registry import Model, Registry
from service.room import Room, Share
from service.scheduling import EXPLANATION, JOB, PREDICTION, EngineThread, Lane, Waiting
from service.schemas import ImageFailure, ModelName, Result
from service.segmenter import Segmenter
from service.series.reading import MAX_PIXELS
from service.settings import Settings
from service.types import Grey8, Masks, Outputs, PreprocessingSpec
from service.uploads import Upload, budget_of, read_files

T = TypeVar("T")
Computed = Answer[Outputs] | ModelFailed
_PIECE = 8  # images of a request that are read together, so that who comes meanwhile soon gets a thread
_ASIDE_S = 0.06  # that a batch takes of what stands aside: it is not stopped
_AHEAD = 2  # pieces of a request that are read or computed: others get to read theirs, and the engine need not wait
PREDICT = "none"  # the method label of metrics where nothing is explained


class Pipeline:
    """All models of this process with their batchers.

    Args:
        settings: of the service.
        registry: what is served; None: loaded as the settings say.
    """

    def __init__(self, settings: Settings, registry: Registry | None = None) -> None:
        self.settings = settings
        self.room = Room(settings.max_study_mib * 2**20 + 4 * MAX_PIXELS)  # the largest study alone always fits
        self.registry = load_served(settings) if registry is None else registry
        self._engine = EngineThread()
        self._lanes = {priority: Lane(self._engine, priority) for priority in (PREDICTION, EXPLANATION, JOB)}
        self.batchers = self._batchers_in(PREDICTION)
        self._standing_aside = self._batchers_in(EXPLANATION, _ASIDE_S)  # for requests that go on to ask much more
        self.outliners: dict[str, Batcher[Masks]] = {
            name: Batcher(
                name,
                partial(_outlined, segmenter),
                self._lanes[PREDICTION],
                max_batch=settings.max_batch,
                max_queue=settings.max_queue,
            )
            for name, segmenter in self.registry.segmenters.items()
        }
        cv2.setNumThreads(0)  # files are read in several threads: OpenCV's own only cost CPU
        workers = settings.decode_threads or min(4, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._chunks = workers
        on_cuda = any(model.engine.provider == "cuda" for model in self.registry.models.values())
        self._read_files = partial(read_files, locked=not on_cuda)  # beside a GPU Python's lock is what limits
        self.admission = Admission(self.batchers.values(), self.outliners.values(), settings.max_wait_s)
        self._explaining = Semaphore(settings.max_explanations)  # held until a thread has ended
        self._slow = ThreadPoolExecutor(settings.max_explanations + 1, thread_name_prefix="explain")  # and a job

    def _batchers_in(self, priority: int, max_seconds: float = BATCH_S) -> dict[str, Batcher[Outputs]]:
        return {
            name: Batcher(
                name,
                model.engine.run,
                self._lanes[priority],
                max_batch=self.settings.max_batch,
                max_queue=self.settings.max_queue,
                max_seconds=max_seconds,
                cost=model.costs.forward / 1000,
            )
            for name, model in self.registry.models.items()
        }

    async def answer(
        self,
        request_id: str,
        model: str,
        uploads: Sequence[Upload],
        wish: Wish,
        *,
        deadline: float | None = None,
        job: JobHandle | None = None,
    ) -> Result:
        """Predict, and explain where it is wished; one result for each image or frame, in order.

        Args:
            request_id: of the answer.
            model: id of the bundle.
            uploads: files.
            wish: what to explain.
            deadline: of the prediction, by `time.perf_counter`.
            job: set where nobody waits: it then yields to all other work.

        Raises:
            UnknownModel, UnknownMethod, UnknownTarget, TooManyImages, BudgetTooSmall, DeadlineTooShort, TooSlow,
                Overloaded, DeadlinePassed: the request as a whole. What is wrong with one file is in its result
                instead.
            ModelFailed: on every image of the request.
            Cancelled: `job` says so.
        """
        start = perf_counter()
        served = self.registry.model(model)
        manifest = served.bundle.manifest
        method = self.check(model, len(uploads), wish, inline=job is None)
        at_once = method is None or method.budget == 0
        brief = method is not None and method.budget <= 1 and not method.gradients
        if job is None:
            self.admission.admit(deadline, len(uploads))
        with Share(self.room if job is None else None) as share:
            budget = budget_of(share.take if wish.overlay else None)
            with self.on_its_way(urgent=job is None and at_once):
                more = manifest.always | (method.outputs if method is not None else frozenset[str]())
                by = None if deadline is None else deadline - self.admission.besides
                batchers = self.batchers if job is None and (at_once or brief) else self._standing_aside
                asking = partial(batchers[model].run, more=more, deadline=by)
                if at_once:
                    due = self.batchers[model].due(len(uploads), by)
                    decoded, computed, decode_end = await self._read_and_compute(served, uploads, budget, asking, due)
                else:
                    decoded = await self.read(uploads, manifest.preprocessing, budget)
                    pixels = [row.item.pixels for row in decoded if isinstance(row, Read)]
                    if method is not None:
                        check_cost(self.settings, served, method, wish, len(pixels), inline=job is None)
                    decode_end = perf_counter()
                    computed = await asking(pixels)
            decoded, answers = set_failed_aside(decoded, computed, request_id if job is None else request_id[:8])
            readable = [row for row in decoded if isinstance(row, Read)]
            inference_end = perf_counter()
            given_up = Event()
            view = self.view(served, job, given_up, wish.options.deadline_ms, brief=brief)
            explaining = partial(explain_all, readable, answers, wish, served, method, view, job)
            if not at_once:
                found = await self.explain_slowly(explaining, given_up, bounded=job is None)
            elif wish.overlay:
                found = await self.in_thread(explaining)
            else:  # some 0.05 ms an image: less than to wake a thread
                found = explaining()
        ready = iter(found)
        results = [next(ready) if isinstance(row, Read) else row for row in decoded]
        end = perf_counter()
        timing = {
            "decode": decode_end - start,
            "queue": max((a.queued for a in answers), default=0.0),
            "inference": max((a.computed for a in answers), default=0.0),
            "explanation": end - inference_end,
            "total": end - start,
        }
        if at_once:
            self.admission.took(end - inference_end + decode_end - start)
        observe(manifest.id, method.name if method else PREDICT, start, timing, results)
        return Result(
            request_id=request_id,
            model=ModelName(id=manifest.id, version=manifest.version),
            results=results,
            timing_ms={stage: round(seconds * 1000, 3) for stage, seconds in timing.items()},
        )

    async def _read_and_compute(
        self,
        served: Model,
        uploads: Sequence[Upload],
        budget: Budget,
        asking: Callable[..., Awaitable[list[Computed]]],
        due: float,
    ) -> tuple[list[Read | ImageFailure], list[Computed], float]:
        """Rows and answers, in order, and when the engine could begin: it computes the first while others are read."""
        batcher, spec = self.batchers[served.bundle.manifest.id], served.bundle.manifest.preprocessing
        size = min(batcher.most, _PIECE)
        ahead = asyncio.Semaphore(_AHEAD)
        begins: list[float] = []
        images = 0

        async def one(first: int) -> tuple[list[Read | ImageFailure], list[Computed]]:
            nonlocal images
            async with ahead:
                piece = uploads[first : first + size]
                rows = await self._decode(piece, spec, budget, first)
                begins.append(perf_counter())
                arriving.left -= len(piece)
                pixels = [row.item.pixels for row in rows if isinstance(row, Read)]
                images += len(pixels)
                batcher.check_count(images)
                return rows, await asking(pixels, due=due)

        with self.admission.reading(len(uploads), due) as arriving:
            tasks = [asyncio.create_task(one(first)) for first in range(0, len(uploads), size)]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()  # what is left where one was refused, or the client went away
        rows, answers = ([each for piece in part for each in piece] for part in zip(*found, strict=True))
        return rows, answers, begins[0]

    def on_its_way(self, *, urgent: bool = True) -> AbstractContextManager[None]:
        """While a prediction is on its way; where it is `urgent`, slower work stands aside."""
        return self._engine.urgent() if urgent else nullcontext()

    def check(self, model: str, files: int, wish: Wish, *, inline: bool = True) -> Method | None:
        """As `service.checking.check_request`."""
        return check_request(self.registry, self.settings, model, files, wish, inline=inline)

    async def read(
        self, uploads: Sequence[Upload], spec: PreprocessingSpec, budget: Budget
    ) -> list[Read | ImageFailure]:
        """Decode and prepare all frames of all files; see `service.uploads.read_files`."""
        with self.admission.reading(len(uploads)):
            return await self._decode(uploads, spec, budget)

    async def _decode(
        self, uploads: Sequence[Upload], spec: PreprocessingSpec, budget: Budget, first: int = 0
    ) -> list[Read | ImageFailure]:
        """The same for a part of a request, whose first file has the number `first` in it."""
        numbered = list(enumerate(uploads, first))
        share = -(-len(numbered) // self._chunks)
        chunks = [numbered[start : start + share] for start in range(0, len(numbered), share)]
        files = await asyncio.gather(
            *(self.in_thread(partial(self._read_files, chunk, spec, budget)) for chunk in chunks)
        )
        return [row for rows in files for row in rows]

    def view(
        self,
        served: Model,
        job: JobHandle | None,
        given_up: Event,
        deadline_ms: int | None = None,
        *,
        brief: bool = False,
    ) -> Waiting:
        """The model as an explanation may use it: a lane of its own, and an end, at once where it is `given_up`.

        What is `brief`, no more than a second image, lines up with predictions: it costs others no more than one.
        """
        if job is None:
            end = None if deadline_ms is None else monotonic() + deadline_ms / 1000
            return Waiting(served.engine, self._lanes[PREDICTION if brief else EXPLANATION], given_up.is_set, end)
        return Waiting(served.engine, self._lanes[JOB], lambda: given_up.is_set() or job.cancelled())

    async def explain_slowly(self, explaining: Callable[[], T], given_up: Event, *, bounded: bool) -> T:
        """In a thread that decoding does not need. It counts until it has ended, also where nobody waits any more.

        Args:
            explaining: is to end where it finds `given_up` set.
            given_up: set where the answer is no longer awaited.
            bounded: whether it is one of `max_explanations`.

        Raises:
            Overloaded: too many wait already.
        """
        if bounded and not self._explaining.acquire(blocking=False):
            raise Overloaded("too many explanations are waiting; try again later, or ask for a job")
        running = self._slow.submit(copy_context().run, explaining)
        if bounded:
            running.add_done_callback(lambda _: self._explaining.release())
        try:
            return await asyncio.wrap_future(running)
        finally:
            given_up.set()

    async def in_thread(self, call: Callable[[], T]) -> T:
        """In one of the threads for decoding and drawing, of which there are few."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, call)


def _outlined(segmenter: Segmenter, images: Grey8, _more: Collection[str]) -> Masks:
    return segmenter.run(images)
