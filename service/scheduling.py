"""Who goes next on the one engine thread: predictions before explanations, explanations before jobs.

A slow method asks its questions a small batch at a time, and each waits for its turn. Work that somebody waits for at
once stands in nobody's way: a slow batch does not start while such work is on its way, and one that runs already is
stopped between two nodes of its graph and done again later. What was kept waiting for some seconds runs to its end, so
that it gets on under any load; what has a deadline waits a fortieth of what is left of it, and gets a thirtieth of the
engine for that.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any, ParamSpec, TypeVar

from service.engine import Engine, Stop, Stopped
from service.errors import Cancelled
from service.types import Float, Grey8, Outputs

P = ParamSpec("P")
T = TypeVar("T")

PREDICTION, EXPLANATION, JOB = 0, 1, 2
PATIENCE = 3.0  # seconds that urgent work may keep other work waiting, and less where that has a deadline:
_HASTE = 1 / 40  # of the time that is left to it
_REST = 29  # times as long as it took, nothing runs for haste: it gets a thirtieth of the engine


@dataclass(order=True, slots=True)
class _Call:
    """A call in line, which waits for urgent ones until `patient` (`time.monotonic`); `hasty` for a deadline's sake."""

    priority: int
    number: int
    patient: float = field(compare=False)
    hasty: bool = field(compare=False)
    run: Callable[[Stop], None] = field(compare=False)


class EngineThread:
    """One thread for all models, so that they do not compete for cores; what waits is done by priority, then by age."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._numbers = itertools.count()
        self._urgent = 0
        self._running: tuple[_Call, Stop] | None = None
        self._rested = 0.0  # when haste may run again
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def put(self, priority: int, run: Callable[[Stop], None], end: float | None = None) -> None:
        """Line up a call that handles its own errors, except for `Stopped`: it is then called again.

        Args:
            priority: of the call.
            run: the call.
            end: deadline of what it is part of (`time.monotonic`): the nearer, the less it waits for urgent work.
        """
        now = monotonic()
        haste = PATIENCE if end is None else max(0.0, end - now) * _HASTE
        with self._changed:
            call = _Call(priority, next(self._numbers), now + min(PATIENCE, haste), haste < PATIENCE, run)
            heapq.heappush(self._waiting, call)
            self._changed.notify()

    @contextmanager
    def urgent(self) -> Generator[None]:
        """While somebody waits for a prediction that is on its way: slower work does not start, or stops."""
        with self._changed:
            self._urgent += 1
            if self._running is not None:
                call, stop = self._running
                if call.priority > PREDICTION and monotonic() < self._turn_of(call):
                    stop.ask()
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify()

    def _work(self) -> None:
        while True:
            call, stop = self._next()
            begun = monotonic()
            try:
                call.run(stop)
            except Stopped:
                with self._changed:
                    heapq.heappush(self._waiting, call)
                continue
            if call.hasty:
                self._rested = monotonic() + _REST * (monotonic() - begun)

    def _next(self) -> tuple[_Call, Stop]:
        with self._changed:
            self._running = None
            while (call := self._ready()) is None:
                self._changed.wait(self._until_one_loses_patience())
            self._running = call, Stop()
            return self._running

    def _ready(self) -> _Call | None:
        """The call whose turn it is: one that has lost patience, else the first of what may start."""
        now = monotonic()
        impatient = [call for call in self._waiting if call.priority > PREDICTION and self._turn_of(call) <= now]
        if impatient and self._urgent:
            call = min(impatient, key=lambda each: each.patient)
            self._waiting.remove(call)
            heapq.heapify(self._waiting)
            return call
        if self._waiting and (self._waiting[0].priority == PREDICTION or not self._urgent):
            return heapq.heappop(self._waiting)
        return None

    def _turn_of(self, call: _Call) -> float:
        """When a call runs in spite of urgent work."""
        return max(call.patient, self._rested) if call.hasty else call.patient

    def _until_one_loses_patience(self) -> float | None:
        turns = [self._turn_of(call) for call in self._waiting if call.priority > PREDICTION]
        return max(0.0, min(turns) - monotonic()) if turns else None


class Lane(Executor):
    """The engine thread at one priority, as an executor."""

    def __init__(self, thread: EngineThread, priority: int) -> None:
        self._thread, self._priority = thread, priority

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` when its turn has come, to its end."""
        return self.submit_stoppable(lambda _: fn(*args, **kwargs))

    def submit_stoppable(self, fn: Callable[[Stop], T], end: float | None = None) -> Future[T]:
        """Run `fn` when its turn has come; where it raises `Stopped`, it is run again later. `end`: see `put`."""
        future: Future[Any] = Future()

        def call(stop: Stop) -> None:
            if not future.running() and not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(stop))
            except Stopped:
                raise
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                future.set_exception(error)

        self._thread.put(self._priority, call, end)
        return future


class Waiting:
    """A model whose every answer waits for its turn; for use in threads other than the engine's.

    Attributes:
        waited: seconds that its calls have waited for their turn, so far.

    Args:
        model: what answers.
        lane: where its calls line up.
        cancelled: asked before each call, and again when its turn has come.
        end: deadline of the calls together (`time.monotonic`), where there is one.

    Raises:
        Cancelled: from any call, once `cancelled` says so.
    """

    def __init__(self, model: Engine, lane: Lane, cancelled: Callable[[], bool], end: float | None = None) -> None:
        self._model, self._lane, self._cancelled, self._end = model, lane, cancelled, end
        self.waited = 0.0

    def run(self, images: Grey8, more: Collection[str] = ()) -> Outputs:
        """See `Engine.run`."""
        return self._in_turn(lambda stop: self._model.run(images, more, stop=stop))

    def logits(self, images: Grey8) -> Float:
        """See `Model`."""
        return self._in_turn(lambda stop: self._model.logits(images, stop=stop))

    def gradient(self, pixels: Float, weights: Float) -> Float:
        """See `Model`."""
        return self._in_turn(lambda stop: self._model.gradient(pixels, weights, stop=stop))

    def until(self, end: float) -> Waiting:
        """The same with another deadline."""
        return Waiting(self._model, self._lane, self._cancelled, end)

    def _in_turn(self, call: Callable[[Stop], T]) -> T:
        self._check()
        asked, waited = perf_counter(), 0.0

        def called(stop: Stop) -> T:
            nonlocal waited
            waited = perf_counter() - asked
            self._check()
            return call(stop)

        try:
            return self._lane.submit_stoppable(called, self._end).result()
        finally:
            self.waited += waited

    def _check(self) -> None:
        if self._cancelled():
            raise Cancelled
