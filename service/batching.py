"""Adaptive batching: while one forward pass runs, the images of all requests gather for the next.

There is no waiting time to tune: an idle model starts at once, a busy one takes what arrived meanwhile, up to a limit
in images and in time. Each request is due after some times as long as its images would take alone, and the one that is
due first goes first (bounded stretch; Bender, Chakrabarti and Muthukrishnan, SODA 1998): small requests overtake large
ones for so long, and nothing is overtaken for ever. While some do, batches are short: what comes waits for the one that
runs. The images of one request go into one batch, unless they are more than the largest batch holds.

Where a batch fails, its halves are tried alone, down to the image whose fault it is; every other image is answered.
Where memory was short and smaller batches work, batches stay smaller for a while.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from service.errors import DeadlinePassed, ModelFailed, Overloaded, TooManyImages
from service.observability import BATCH_IMAGES, QUEUE_SECONDS, logger
from service.types import Grey8

BATCH_S = 0.25  # that a batch may take by default
_STRETCH = 3.0  # times as long as alone, after which a request is due
_SHORT_S = 0.1  # while small requests overtake large ones
_OVERTAKING_S = 2.0  # that they are taken to go on with it
_SMALLER_S = 60.0  # that batches stay smaller after memory was short
# What ONNX Runtime's arena, C++ and CUDA say; its Python errors have no class for it.
_NO_MEMORY = ("allocate memory", "bad_alloc", "out of memory", "ALLOC_FAILED")


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


@dataclass(order=True, slots=True)
class _Request(Generic[R]):
    """Images `[H, W]` of one request, of which the first `taken` are in a batch already."""

    due: float
    number: int
    images: Sequence[Grey8] = field(compare=False)
    more: frozenset[str] = field(compare=False)
    since: float = field(compare=False)
    deadline: float | None = field(compare=False)
    deliver: Callable[[list[Answer[R] | ModelFailed] | DeadlinePassed], None] = field(compare=False)
    answers: list[Answer[R] | ModelFailed | None] = field(compare=False)
    taken: int = field(default=0, compare=False)
    left: int = field(default=0, compare=False)
    gone: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    """One image of a batch."""

    request: _Request[R]
    index: int


class Batcher(Generic[R]):
    """Feeds one model's images to `run` in `executor`, which forms a batch when it comes to it.

    Args:
        name: of the model, for the metrics of batch sizes and queue time.
        run: uint8 `[N, H, W, 1]` and the names of further outputs to outputs; called in `executor`.
        executor: one thread, shared by all models so that they do not compete for cores.
        max_batch: most images in one call.
        max_queue: most images that may wait.
        max_seconds: that a batch may take: what arrives meanwhile waits for it.
        cost: seconds an image takes, as far as is known; it is measured from then on.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Grey8, Collection[str]], R],
        executor: Executor,
        *,
        max_batch: int,
        max_queue: int,
        max_seconds: float = BATCH_S,
        cost: float = 0.0,
    ) -> None:
        self._sizes = BATCH_IMAGES.labels(name)
        self._queued = QUEUE_SECONDS.labels(name)
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._smaller, self._smaller_until = max_batch, 0.0
        self._max_queue = max_queue
        self._max_seconds = max_seconds
        self._overtaking_until = 0.0
        self._cost = cost
        self._lock = threading.Lock()
        self._waiting: list[_Request[R]] = []  # a heap
        self._images = 0  # of those that wait, and of the batch that runs
        self._numbers = itertools.count()
        self._turn_taken = False

    def ahead(self, due: float = inf) -> float:
        """Seconds that the images would take which run, or wait and are due before (`time.perf_counter`)."""
        with self._lock:
            later = sum(len(other.images) - other.taken for other in self._waiting if other.due > due)
            return (self._images - later) * self._cost

    @property
    def cost(self) -> float:
        """Seconds an image takes in the batches of late."""
        return self._cost

    @property
    def most(self) -> int:
        """Images of the largest batch of late."""
        return self._most(perf_counter())

    def due(self, count: int, deadline: float | None = None) -> float:
        """As `due_of`, of this model's images."""
        return due_of(count * self._cost, deadline)

    def check_count(self, images: int) -> None:
        """Raises TooManyImages where one request has more than may ever wait."""
        if images > self._max_queue:
            raise TooManyImages(f"at most {self._max_queue} images and frames in one request")

    async def run(
        self,
        images: Sequence[Grey8],
        more: frozenset[str] = frozenset(),
        *,
        deadline: float | None = None,
        due: float | None = None,
    ) -> list[Answer[R] | ModelFailed]:
        """Answers for prepared images uint8 `[H, W]`, in order, with the outputs `more` besides the usual ones.

        An image that the model cannot compute even alone has a `ModelFailed` in its place, with the cause. Images that
        are a part of more have the `due` of all together.

        Raises:
            TooManyImages: more than may ever wait.
            Overloaded: too many images wait already; none of these was queued.
            DeadlinePassed: `deadline` (`time.perf_counter`) cannot be met any more; at most a part was computed.
        """
        if not images:
            return []
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Answer[R] | ModelFailed]] = loop.create_future()

        def deliver(found: list[Answer[R] | ModelFailed] | DeadlinePassed) -> None:
            loop.call_soon_threadsafe(_settle, future, found)

        request = self._queue(images, more, deadline, self.due(len(images), deadline) if due is None else due, deliver)
        try:
            return await future
        finally:
            request.gone = True  # the client went away: what still waits is skipped

    def _queue(
        self,
        images: Sequence[Grey8],
        more: frozenset[str],
        deadline: float | None,
        due: float,
        deliver: Callable[[list[Answer[R] | ModelFailed] | DeadlinePassed], None],
    ) -> _Request[R]:
        now, count = perf_counter(), len(images)
        self.check_count(count)
        with self._lock:
            if self._images + count > self._max_queue:
                raise Overloaded("too many images are waiting for this model; try again later")
            request = _Request(
                due, next(self._numbers), images, more, now, deadline, deliver, [None] * count, left=count
            )
            if any(due + count * self._cost < other.due for other in self._waiting):
                self._overtaking_until = now + _OVERTAKING_S
            heapq.heappush(self._waiting, request)
            self._images += count
            idle, self._turn_taken = not self._turn_taken, True
        if idle:
            self._executor.submit(self._turn)
        return request

    def _turn(self) -> None:
        """One batch, in the executor; then the next turn, behind what else waits there."""
        batch, late = self._next_batch()
        for request in late:
            request.deliver(DeadlinePassed())
        if batch:
            self._answer(batch)
        with self._lock:
            self._images -= len(batch)
            self._turn_taken = bool(self._waiting)
            more = self._turn_taken
        if more:
            self._executor.submit(self._turn)

    def _answer(self, batch: list[_Entry[R]]) -> None:
        """Answer every image of a batch; where the forward pass fails, by halves."""
        pieces = [batch]
        worked, short, culprit = 1, False, False
        while pieces:
            piece = [entry for entry in pieces.pop() if not entry.request.gone]
            if not piece:
                continue
            error = self._forward(piece)
            if error is None:
                worked = max(worked, len(piece))
            elif len(piece) > 1:
                short = short or is_out_of_memory(error)
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]
            else:
                culprit = True
                _put(piece[0], _failure(error))
        if short and not culprit:
            logger.warning("memory was short: batches of at most %d for %.0f s", worked, _SMALLER_S)
            self._smaller, self._smaller_until = worked, perf_counter() + _SMALLER_S

    def _forward(self, batch: list[_Entry[R]]) -> Exception | None:
        """One forward pass. Answers the batch, or returns what went wrong."""
        images = np.stack([entry.request.images[entry.index] for entry in batch])[..., np.newaxis]
        more = sorted(frozenset[str]().union(*(entry.request.more for entry in batch)))
        start = perf_counter()
        try:
            outputs = self._run(images, more)
        except Exception as error:  # noqa: BLE001 - whatever broke belongs to this batch, not to the thread
            return error
        computed = perf_counter() - start
        each = computed / len(batch)
        self._cost = 0.8 * self._cost + 0.2 * each if self._cost else each
        self._sizes.observe(len(batch))
        for row, entry in enumerate(batch):
            self._queued.observe(start - entry.request.since)
            _put(entry, Answer(outputs.row(row), start - entry.request.since, computed, len(batch)))
        return None

    def _next_batch(self) -> tuple[list[_Entry[R]], list[_Request[R]]]:
        """The images of the next batch, and the requests that it is too late for."""
        batch: list[_Entry[R]] = []
        late: list[_Request[R]] = []
        now = perf_counter()
        with self._lock:
            most = self._most(now)
            while self._waiting and len(batch) < most:
                request = self._waiting[0]
                left = len(request.images) - request.taken
                if request.gone or self._too_late(request, now, most):
                    heapq.heappop(self._waiting)
                    self._images -= left
                    if not request.gone:
                        request.gone = True
                        late.append(request)
                    continue
                if batch and left > most - len(batch):
                    break  # what does not fit whole would only keep the others: it begins the next batch
                fitting = range(request.taken, request.taken + min(left, most - len(batch)))
                batch += [_Entry(request, index) for index in fitting]
                request.taken = fitting.stop
                if request.taken == len(request.images):
                    heapq.heappop(self._waiting)
        return batch, late

    def _most(self, now: float) -> int:
        """Images of the next batch."""
        seconds = min(self._max_seconds, _SHORT_S) if now < self._overtaking_until else self._max_seconds
        in_time = int(seconds / self._cost) if self._cost else self._max_batch
        return max(1, min(self._smaller if now < self._smaller_until else self._max_batch, in_time))

    def _too_late(self, request: _Request[R], now: float, most: int) -> bool:
        """Whether the batches that the request ends in will end after its deadline; they are as full as they may be."""
        if request.deadline is None:
            return False
        left = len(request.images) - request.taken
        images = max(left, min(most, self._images))
        return now + images * self._cost > request.deadline


def due_of(alone: float, deadline: float | None = None) -> float:
    """When a request that comes now is due (`time.perf_counter`).

    Args:
        alone: seconds that it would take without others.
        deadline: before which it is due so early that it can be met.
    """
    now = perf_counter()
    due = now + _STRETCH * alone
    return due if deadline is None else min(due, max(now, deadline - alone))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on the host or on the device."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def _put(entry: _Entry[R], answer: Answer[R] | ModelFailed) -> None:
    """Keep an image's answer; deliver the request's where it is the last."""
    request = entry.request
    request.answers[entry.index] = answer
    request.left -= 1
    if request.left == 0 and not request.gone:
        request.deliver([each for each in request.answers if each is not None])


def _failure(error: Exception) -> ModelFailed:
    failed = ModelFailed(
        "the model failed on this image; the log has more under the first 8 characters of the request id"
    )
    failed.__cause__ = error
    return failed


def _settle(
    future: asyncio.Future[list[Answer[R] | ModelFailed]], found: list[Answer[R] | ModelFailed] | DeadlinePassed
) -> None:
    if future.done():
        return
    if isinstance(found, DeadlinePassed):
        future.set_exception(found)
    else:
        future.set_result(found)
