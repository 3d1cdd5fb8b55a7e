"""Who goes next on the one engine thread: predictions before explanations, explanations before jobs.

A slow method asks its questions a small batch at a time, and each batch waits for its turn, so that a prediction waits
for one such batch at most.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from service.engine import Engine
from service.errors import Cancelled
from service.types import Float, Grey8, Outputs

P = ParamSpec("P")
T = TypeVar("T")

PREDICTION, EXPLANATION, JOB = 0, 1, 2


class EngineThread:
    """One thread for all models, so that they do not compete for cores; what waits is done by priority, then by age."""

    def __init__(self) -> None:
        self._waiting: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def put(self, priority: int, call: Callable[[], None]) -> None:
        """Line up a call that handles its own errors."""
        self._waiting.put((priority, next(self._numbers), call))

    def _work(self) -> None:
        while True:
            _, _, call = self._waiting.get()
            call()


class Lane(Executor):
    """The engine thread at one priority, as an executor."""

    def __init__(self, thread: EngineThread, priority: int) -> None:
        self._thread, self._priority = thread, priority

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` when its turn has come."""
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                future.set_exception(error)

        self._thread.put(self._priority, call)
        return future


class Waiting:
    """A model whose every answer waits for its turn; for use in threads other than the engine's.

    Args:
        model: what answers.
        lane: where its calls line up.
        cancelled: asked before each call.

    Raises:
        Cancelled: from any call, once `cancelled` says so.
    """

    def __init__(self, model: Engine, lane: Lane, cancelled: Callable[[], bool]) -> None:
        self._model, self._lane, self._cancelled = model, lane, cancelled

    def run(self, images: Grey8, more: Collection[str] = ()) -> Outputs:
        """See `Engine.run`."""
        self._check()
        return self._lane.submit(self._model.run, images, more).result()

    def logits(self, images: Grey8) -> Float:
        """See `Model`."""
        self._check()
        return self._lane.submit(self._model.logits, images).result()

    def gradient(self, pixels: Float, weights: Float) -> Float:
        """See `Model`."""
        self._check()
        return self._lane.submit(self._model.gradient, pixels, weights).result()

    def _check(self) -> None:
        if self._cancelled():
            raise Cancelled
