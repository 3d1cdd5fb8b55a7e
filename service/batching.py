"""Adaptive batching: while one forward pass runs, the images of all requests gather for the next.

There is no waiting time to tune: an idle model starts at once, a busy one takes everything that arrived meanwhile, up
to a limit. The images of one request go into one batch, unless they are more than the largest batch holds.

Where a batch fails, its halves are tried alone, down to the image whose fault it is; every other image is answered.
Where memory was short and smaller batches work, batches stay smaller for a while.
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

from service.errors import ModelFailed, Overloaded
from service.observability import BATCH_IMAGES, logger
from service.types import Grey8

_SMALLER_S = 60.0  # that batches stay smaller after memory was short
# What ONNX Runtime's arena, C++ and CUDA say; its Python errors have no class for it.
_SHORT = ("allocate memory", "bad_alloc", "out of memory", "ALLOC_FAILED")


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
    future: asyncio.Future[Answer[R] | ModelFailed]
    since: float
    opens: int


class Batcher(Generic[R]):
    """Feeds one model's images, in order of arrival, to `run` in `executor`.

    Args:
        name: of the model, for the batch-size metric.
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
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._smaller, self._smaller_until = max_batch, 0.0
        self._max_queue = max_queue
        self._waiting: deque[_Waiting[R]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def run(self, images: Sequence[Grey8], more: frozenset[str] = frozenset()) -> list[Answer[R] | ModelFailed]:
        """Answers for prepared images uint8 `[H, W]`, in order, with the outputs `more` besides the usual ones.

        An image that the model cannot compute even alone has a `ModelFailed` in its place, with the cause.

        Raises:
            Overloaded: too many images wait already; none of these was queued.
        """
        if len(self._waiting) + len(images) > self._max_queue:
            raise Overloaded("too many images are waiting for this model; try again later")
        loop = asyncio.get_running_loop()
        now = perf_counter()
        futures: list[asyncio.Future[Answer[R] | ModelFailed]] = [loop.create_future() for _ in images]
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
        while self._waiting:
            if batch := self._next_batch():
                await self._answer(batch)

    async def _answer(self, batch: list[_Waiting[R]]) -> None:
        """Answer every image of a batch; where the forward pass fails, by halves."""
        pieces = [batch]
        worked, short, culprit = 1, False, False
        while pieces:
            piece = [entry for entry in pieces.pop() if not entry.future.done()]
            if not piece:
                continue
            error = await self._forward(piece)
            if error is None:
                worked = max(worked, len(piece))
            elif len(piece) > 1:
                short = short or is_out_of_memory(error)
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]
            else:
                culprit = True
                _fail(piece[0], error)
        if short and not culprit:
            logger.warning("memory was short: batches of at most %d for %.0f s", worked, _SMALLER_S)
            self._smaller, self._smaller_until = worked, perf_counter() + _SMALLER_S

    async def _forward(self, batch: list[_Waiting[R]]) -> Exception | None:
        """One forward pass. Answers the batch, or returns what went wrong."""
        images = np.stack([entry.image for entry in batch])[..., np.newaxis]
        more = sorted(frozenset[str]().union(*(entry.more for entry in batch)))
        start = perf_counter()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, images, more)
        except Exception as error:  # noqa: BLE001 - whatever broke belongs to this batch, not to the worker
            return error
        computed = perf_counter() - start
        self._sizes.observe(len(batch))
        for row, entry in enumerate(batch):
            if not entry.future.done():
                entry.future.set_result(Answer(outputs.row(row), start - entry.since, computed, len(batch)))
        return None

    def _next_batch(self) -> list[_Waiting[R]]:
        most = self._smaller if perf_counter() < self._smaller_until else self._max_batch
        batch: list[_Waiting[R]] = []
        while self._waiting and len(batch) < most:
            if batch and self._waiting[0].opens > most - len(batch):
                break  # a request that does not fit begins the next batch
            entry = self._waiting.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on the host or on the device."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SHORT)


def _fail(entry: _Waiting[R], error: Exception) -> None:
    if not entry.future.done():
        failed = ModelFailed(
            "the model failed on this image; the log has more under the first 8 characters of the request id"
        )
        failed.__cause__ = error
        entry.future.set_result(failed)
