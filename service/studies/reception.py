"""Series that arrive instance by instance, by whichever associations: one job each, once nothing more comes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from service.errors import Overloaded
from service.studies.upload import HeldUpload


@dataclass(slots=True)
class _Arriving:
    """A series, its job, and who brings it."""

    upload: HeldUpload
    lock: Lock = field(default_factory=Lock)
    bringers: set[int] = field(default_factory=set[int])
    last: float = field(default_factory=monotonic)


class Reception:
    """Takes instances from threads.

    Args:
        open_upload: makes the job of a series, by its key and its sender.
        folder: whose disk must not fill up.
        min_free: bytes that must stay free on it.
        quiet_s: seconds without an instance after which a series is complete although its sender is still there.
        settle_s: the same once its sender has left: another association may bring the rest.
    """

    def __init__(
        self,
        open_upload: Callable[[str, str], HeldUpload],
        folder: str,
        *,
        min_free: int,
        quiet_s: float,
        settle_s: float,
    ) -> None:
        self._open, self._folder, self._min_free = open_upload, folder, min_free
        self._quiet_s, self._settle_s = quiet_s, settle_s
        self._lock = Lock()
        self._series: dict[str, _Arriving] = {}

    def take(self, bringer: int, series: str, content: bytes, sender: str) -> None:
        """Take an instance: it is on disk and part of a job when this returns.

        Args:
            bringer: the association.
            series: key of the series.
            content: the file.
            sender: whose share of the queue a job takes that is made of it.

        Raises:
            Overloaded: the queue or the disk is full.
            TooManyRequests: the sender's share of the queue is.
            TooLarge: the series has become too large.
            OSError: it cannot be written.
        """
        if shutil.disk_usage(self._folder).free < self._min_free + len(content):
            raise Overloaded("the disk is full")
        with self._lock:
            self._forget_old()
            arriving = self._series.get(series) or _Arriving(self._open(series, sender))
            self._series[series] = arriving
            arriving.bringers.add(bringer)
            arriving.last = monotonic()
        with arriving.lock:
            if arriving.upload.add(content):
                return
            arriving.upload = self._open(series, sender)  # a worker has the other: what comes now is another job
            if not arriving.upload.add(content):
                raise Overloaded("the queue takes instances faster than they are written")

    def leave(self, bringer: int) -> None:
        """An association is over, one way or the other: its series are complete, unless another brings them too."""
        with self._lock:
            left = [each for each in self._series.values() if bringer in each.bringers]
            for arriving in left:
                arriving.bringers.discard(bringer)
                if not arriving.bringers:
                    arriving.upload.end(self._settle_s)

    def close(self) -> None:
        """Nothing more comes: every series is complete, or as complete as it will be."""
        with self._lock:
            for arriving in self._series.values():
                with arriving.lock:
                    arriving.upload.end(self._settle_s)
            self._series.clear()

    def _forget_old(self) -> None:
        """Forget series that have been quiet for long: their jobs are due, and what comes now is another one."""
        before = monotonic() - max(self._quiet_s, self._settle_s) - 60.0
        for key, arriving in list(self._series.items()):
            if arriving.last < before:
                del self._series[key]
