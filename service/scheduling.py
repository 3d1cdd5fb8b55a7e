"""Who goes next on the one engine thread: predictions before explanations, explanations before jobs.

A slow method asks its questions a small batch at a time, and each waits for its turn. Work that somebody waits for at
once stands in nobody's way: a slow batch does not start while such work is on its way, and one that runs already is
stopped between two nodes of its graph and done again later. What was kept waiting for some seconds runs to its end, so
that it gets on under any load. What still waits at its deadline is in haste, for it is to end; such haste keeps one in
a hundred urgent requests waiting, no more, so that their 95th percentile does not come to be the length of a batch.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic, perf_counter
from typing import Any, ParamSpec, TypeVar

from service.engine import Engine, Stop, Stopped
from service.errors import Cancelled
from service.types import Float, Grey8, Outputs

P = ParamSpec("P")
T = TypeVar("T")

PREDICTION, EXPLANATION, JOB = 0, 1, 2
PATIENCE = 3.0  # seconds that urgent work may keep other work waiting
_SPARED = 100  # urgent requests for each that haste keeps waiting


@dataclass(order=True, slots=True)
class _Call:
    """A call in line, which waits for urgent ones until `patient` (`time.monotonic`), and is in haste from `haste`."""

    priority: int
    number: int
    patient: float = field(compare=False)
    haste: float = field(compare=False)
    run: Callable[[Stop], None] = field(compare=False)


@dataclass(slots=True)
class _Running:
    """The call that the thread is at; `hurried` where it runs on for its haste alone."""

    call: _Call
    stop: Stop = field(default_factory=Stop)
    hurried: bool = False


class EngineThread:
    """One thread for all models, so that they do not compete for cores; what waits is done by priority, then by age."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._numbers = itertools.count()
        self._urgent = 0
        self._spared = _SPARED  # urgent requests that haste has not kept waiting
        self._running: _Running | None = None
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def put(self, priority: int, run: Callable[[Stop], None], end: float | None = None) -> None:
        """Line up a call that handles its own errors, except for `Stopped`: it is then called again.

        Args:
            priority: of the call.
            run: the call.
            end: deadline of what it is part of (`time.monotonic`), from which it is in haste.
        """
        with self._changed:
            patient, haste = monotonic() + PATIENCE, inf if end is None else end
            heapq.heappush(self._waiting, _Call(priority, next(self._numbers), patient, haste, run))
            self._changed.notify()

    @contextmanager
    def urgent(self) -> Generator[None]:
        """While somebody waits for a prediction that is on its way: slower work does not start, or stops."""
        with self._changed:
            self._urgent += 1
            self._spared = min(self._spared + 1, _SPARED)
            if self._running is not None and self._running.call.priority > PREDICTION:
                self._disturb(self._running)
            self._changed.notify()  # haste may have earned its turn
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify()

    def _disturb(self, running: _Running) -> None:
        """Somebody came while slow work runs: it stops, unless its turn is now; then who came waits."""
        now = monotonic()
        if running.stop.asked or now >= running.call.patient:
            return
        running.hurried = running.hurried or self._hurries(running.call, now)
        if running.hurried:
            self._spared -= _SPARED
        else:
            running.stop.ask()

    def _work(self) -> None:
        while True:
            running = self._next()
            try:
                running.call.run(running.stop)
            except Stopped:
                with self._changed:
                    heapq.heappush(self._waiting, running.call)

    def _next(self) -> _Running:
        with self._changed:
            self._running = None
            while (running := self._ready()) is None:
                self._changed.wait(self._until_a_turn())
            self._running = running
            return running

    def _ready(self) -> _Running | None:
        """The call whose turn it is: what urgent work may not keep waiting any more, else the first that may start."""
        if self._urgent:
            now = monotonic()
            slow = [call for call in self._waiting if call.priority > PREDICTION]
            over = [call for call in slow if now >= call.patient]
            if kept := over or [call for call in slow if self._hurries(call, now)]:
                call = min(kept, key=lambda each: each.number)
                self._waiting.remove(call)
                heapq.heapify(self._waiting)
                self._spared -= 0 if over else _SPARED * self._urgent
                return _Running(call, hurried=not over)
            if not self._waiting or self._waiting[0].priority > PREDICTION:
                return None
        return _Running(heapq.heappop(self._waiting)) if self._waiting else None

    def _hurries(self, call: _Call, now: float) -> bool:
        return now >= call.haste and self._spared >= _SPARED

    def _until_a_turn(self) -> float | None:
        """Seconds until a waiting call need not wait for urgent work any more, unless something happens before."""
        slow = [call for call in self._waiting if call.priority > PREDICTION]
        turns = [min(call.patient, call.haste) if self._spared >= _SPARED else call.patient for call in slow]
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
