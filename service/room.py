"""Memory for what small files unpack and decode to: how much of it all requests of a process may hold at once."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

from service.errors import Cancelled, Overloaded


class Room:
    """Shared by all requests of a process. Nobody waits for room, so that nobody can wait for each other.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._lock, self._free = Lock(), size

    def take(self, size: int) -> None:
        """Take bytes, from any thread.

        Raises:
            Overloaded: others hold them; nothing was taken.
        """
        with self._lock:
            if size > self._free:
                raise Overloaded("the images of other requests take all memory for them; try again later")
            self._free -= size

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._free += size


class Share:
    """What one request holds of a room; given back at the end of the `with` block.

    Args:
        room: None for work that goes one by one, and need not be counted.
    """

    def __init__(self, room: Room | None) -> None:
        self._room, self._lock, self._taken, self._over = room, Lock(), 0, False

    def take(self, size: int) -> None:
        """Take bytes, from any thread.

        Raises:
            Overloaded: others hold them.
            Cancelled: the request is over, and nobody waits for what the thread still does.
        """
        with self._lock:
            if self._over:
                raise Cancelled
            if self._room is not None:
                self._room.take(size)
                self._taken += size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._over = True
            if self._room is not None:
                self._room.give_back(self._taken)
