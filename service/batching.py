"""Adaptive batching: while one forward pass runs, the images of all requests gather for the next.

There is no waiting time to tune: an idle model starts at once, a busy one takes everything that arrived meanwhile, up
to a limit. The images of one request go into one batch, unless they are more than the largest batch holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from service.errors import Overloaded
from service.observability import BATCH_IMAGES, QUEUE_SECONDS
from service.types import Grey8


class Rows(Protocol):
    """What a forward pass gives for a batch."""

    def row(self, index: int) -> Self:
        """One image's part of it, without the axis N."""
        ...


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """One image's outputs; seconds waited, and seconds of its forward pass."""

    outputs: R
    queued: float
    computed: float
    batch: int


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[R]):
    """One image `[H, W]`; `opens` is the size of its request where it is the first image of it, else 0."""

    image: Grey8
    more: frozenset[str]
    future: asyncio.Future[Answer[R]]
    since: float
    opens: int


class Batcher(Generic[R]):
    """Feeds one model's images, in order of arrival, to `run` in `executor`.

    Args:
        name: of the model, for the metrics of batch sizes and queue time.
        run: uint8 `[N, H, W, 1]` and the names of further outputs to outputs; called in `executor`.
        executor: one thread, shared by all models so that they do not compete for cores.
        max_batch: most images in one call.
        max_queue: most images that may wait.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Grey8, Collection[str]], R],
        executor: Executor,
        *,
        max_batch: int,
        max_queue: int,
    ) -> None:
        self._sizes = BATCH_IMAGES.labels(name)
        self._queued = QUEUE_SECONDS.labels(name)
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: deque[_Waiting[R]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def run(self, images: Sequence[Grey8], more: frozenset[str] = frozenset()) -> list[Answer[R]]:
        """Answers for prepared images uint8 `[H, W]`, in order, with the outputs `more` besides the usual ones.

        Raises:
            Overloaded: too many images wait already; none of these was queued.
        """
        if len(self._waiting) + len(images) > self._max_queue:
            raise Overloaded("too many images are waiting for this model; try again later")
        loop = asyncio.get_running_loop()
        now = perf_counter()
        futures: list[asyncio.Future[Answer[R]]] = [loop.create_future() for _ in images]
        for row, (image, future) in enumerate(zip(images, futures, strict=True)):
            self._waiting.append(_Waiting(image, more, future, now, 0 if row else len(images)))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()  # the client went away: what still waits is skipped

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next_batch()
            if not batch:
                continue
            images = np.stack([entry.image for entry in batch])[..., np.newaxis]
            more = sorted(frozenset[str]().union(*(entry.more for entry in batch)))
            start = perf_counter()
            try:
                outputs = await loop.run_in_executor(self._executor, self._run, images, more)
            except Exception as error:  # noqa: BLE001 - whatever broke belongs to the requests of this batch, not to the worker
                _fail([entry.future for entry in batch], error)
                continue
            computed = perf_counter() - start
            self._sizes.observe(len(batch))
            for row, entry in enumerate(batch):
                self._queued.observe(start - entry.since)
                if not entry.future.done():
                    entry.future.set_result(Answer(outputs.row(row), start - entry.since, computed, len(batch)))

    def _next_batch(self) -> list[_Waiting[R]]:
        batch: list[_Waiting[R]] = []
        while self._waiting and len(batch) < self._max_batch:
            if batch and self._waiting[0].opens > self._max_batch - len(batch):
                break  # a request that does not fit begins the next batch
            entry = self._waiting.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch


def _fail(futures: Sequence[asyncio.Future[Answer[R]]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
