"""What is ahead of a request that comes now, and whether it is let in."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

from service.batching import BATCH_S, Batcher, due_of
from service.errors import Overloaded


@dataclass(eq=False, slots=True)
class Arriving:
    """Files of a request that are being read; `left` is for whoever reads them to count down."""

    due: float
    left: int


class Admission:
    """Knows all that waits for the engine.

    Args:
        classifiers: one of them is asked, it is not known which.
        outliners: the other models.
        max_wait_s: seconds of work that may be due before a request.
    """

    def __init__(
        self, classifiers: Collection[Batcher[Any]], outliners: Collection[Batcher[Any]], max_wait_s: float
    ) -> None:
        self._classifiers, self._outliners, self._max_wait_s = classifiers, outliners, max_wait_s
        self._arriving: set[Arriving] = set()
        self._besides = 0.0

    @property
    def cost(self) -> float:
        """Seconds an image takes, of the classifier that takes longest."""
        return max((batcher.cost for batcher in self._classifiers), default=0.0)

    @property
    def besides(self) -> float:
        """Seconds of late between the forward passes and the answers."""
        return self._besides

    def took(self, besides: float) -> None:
        """A request took so many seconds beside its forward passes."""
        self._besides += 0.1 * (besides - self._besides)

    def ahead(self, due: float = inf) -> float:
        """Seconds of work that are due before (`time.perf_counter`); all that is here where left out."""
        waiting = sum(batcher.ahead(due) for batcher in (*self._classifiers, *self._outliners))
        return waiting + self.cost * sum(each.left for each in self._arriving if each.due <= due)

    @contextmanager
    def reading(self, files: int, due: float | None = None) -> Generator[Arriving]:
        """While so many files are read."""
        arriving = Arriving(due_of(files * self.cost) if due is None else due, files)
        self._arriving.add(arriving)
        try:
            yield arriving
        finally:
            self._arriving.remove(arriving)

    def admit(self, deadline: float | None, files: int = 1) -> None:
        """Refuse at once what would wait too long; asked before a body is read, and again when it is.

        Args:
            deadline: that the caller gave, by `time.perf_counter`.
            files: of the request.

        Raises:
            Overloaded: with the seconds after which to try again.
        """
        alone = files * self.cost
        wait = self.ahead(due_of(alone, deadline))
        batch = min(self.ahead(), BATCH_S)  # its own is as full as others make it
        if deadline is not None and perf_counter() + wait + batch + alone + self._besides > deadline:
            raise Overloaded("what is waiting takes longer than the deadline allows", retry_after=wait)
        if wait > self._max_wait_s:
            raise Overloaded("too much is waiting; try again later", retry_after=wait - self._max_wait_s)
