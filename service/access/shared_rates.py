"""How often, and how many at once, one caller may ask of all worker processes of a server together.

They share a table, a file of the server's folder that each of them maps. It holds callers as SHA-256; for each, when
it is due (`service.access.rates`, by CLOCK_MONOTONIC, which all processes of a host share); and, a column for each
worker, how many of its requests that worker has under way. A lock on the file is held for microseconds, and the system
releases it when its holder dies. A worker that is killed between two writes leaves a table that holds: at worst one
request counted that was never answered.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from mmap import mmap
from pathlib import Path
from time import monotonic

from service.access.rates import Limits, Rates
from service.errors import TooManyRequests
from service.observability import logger

_FILE = "rates"
_DIGEST = 32  # bytes
_BUCKET = 64  # rows, of which a caller takes any: its digest says in which bucket
_ROWS = 128 * _BUCKET
_DUE = _ROWS * _DIGEST  # where that column begins, a float64 a row; before it the digests
_RUNNING = _DUE + _ROWS * 8  # where the workers' columns begin, an uint32 a row


class SharedRates:
    """As `Rates`, over all workers. One for each worker process.

    A row is idle, and the next caller's who finds none, where nothing is under way and its caller is due: all that is
    known of such a caller is what is known of a stranger.

    Args:
        limits: of every caller, the same in every worker.
        folder: of this server (`service.server_folder`).
        worker: its number, from 1, of no other worker that lives: what its predecessor had under way is forgotten.
        workers: how many there are.
        clock: seconds that only grow, the same in every process.

    Raises:
        OSError: there is no room for the table.
    """

    def __init__(
        self, limits: Limits, folder: Path, worker: int, workers: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._limits, self._clock = limits, clock
        self._file = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._table = self._mapped(_RUNNING + workers * _ROWS * 4)
        except OSError:
            os.close(self._file)
            raise
        self._due = memoryview(self._table)[_DUE:_RUNNING].cast("d")
        self._running = memoryview(self._table)[_RUNNING:].cast("I")
        self._own = self._running[(worker - 1) * _ROWS : worker * _ROWS]
        self._own[:] = memoryview(bytes(_ROWS * 4)).cast("I")

    def enter(self, caller: str) -> None:
        """Count a request of this caller; `leave` must follow.

        Raises:
            TooManyRequests: with the seconds to wait. The request does not count.
        """
        digest = _digest(caller)
        with self._turn():
            now = self._clock()
            row = self._find(digest)
            if row is None:
                row = self._idle(digest, now)
            due = self._limits.admit(self._due[row], sum(self._running[row::_ROWS]), now)
            self._table[row * _DIGEST : (row + 1) * _DIGEST] = digest
            self._due[row] = due
            self._own[row] += 1

    def leave(self, caller: str) -> None:
        """The request is answered. Needs no lock: no other worker writes this column, or takes a row that it counts."""
        row = self._find(_digest(caller))
        assert row is not None  # noqa: S101 - `enter` made it
        self._own[row] -= 1

    def close(self) -> None:
        """Take part no more."""
        os.close(self._file)

    def _find(self, digest: bytes) -> int | None:
        first = _first(digest)
        at = self._table[first * _DIGEST : (first + _BUCKET) * _DIGEST].find(digest)
        return None if at < 0 else first + at // _DIGEST

    def _idle(self, digest: bytes, now: float) -> int:
        first = _first(digest)
        for row in range(first, first + _BUCKET):
            if self._due[row] <= now and not any(self._running[row::_ROWS]):
                return row
        raise TooManyRequests("too many callers ask at once", 1.0)  # there are thousands: docs/access.md

    @contextmanager
    def _turn(self) -> Generator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _mapped(self, size: int) -> mmap:
        with self._turn():
            if os.fstat(self._file).st_size != size:  # written, for a page without a place on the disk is a SIGBUS
                with open(self._file, "wb", closefd=False) as file:
                    file.write(bytes(size))
        return mmap(self._file, size)


def rates_of(limits: Limits, folder: Path | None, worker: int, workers: int) -> Rates | SharedRates:
    """The server's, in its folder; this process's own where there is none, or no room in it (a warning says so)."""
    if folder is None or not limits:
        return Rates(limits)
    try:
        return SharedRates(limits, folder, worker, workers)
    except OSError as error:
        logger.warning("each worker counts its callers' requests alone: %s", error.strerror)
        return Rates(limits)


def _digest(caller: str) -> bytes:
    return sha256(caller.encode()).digest()


def _first(digest: bytes) -> int:
    """The first row of its bucket."""
    return int.from_bytes(digest[:4]) % (_ROWS // _BUCKET) * _BUCKET
