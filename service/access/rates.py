"""How often, and how many at once, one caller may ask; counted in this process, the only one of its server.

The rate is a generic cell rate algorithm (ITU-T I.371, Annex A) on a clock that only grows: one number for each caller,
no thread, exact about when to come back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

from service.errors import TooManyRequests

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
RATE_PATTERN = r"^([1-9][0-9]{0,6})/(second|minute|hour)$"
_FORGET = 4096  # callers after which those that are long gone are forgotten


class Limits:
    """What one caller may.

    Args:
        rate: such as `600/minute`: so many evenly spread, or at once after a pause; empty: any.
        at_once: most requests of one caller that may be under way; 0: any.
    """

    def __init__(self, rate: str = "", at_once: int = 0) -> None:
        found = re.fullmatch(RATE_PATTERN, rate)
        self._window = _UNITS[found[2]] if found else 0.0
        self._each = self._window / int(found[1]) if found else 0.0
        self._at_once = at_once

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._each or self._at_once)

    def admit(self, due: float, running: int, now: float) -> float:
        """When a caller would be due who asked no faster than the rate, one more request counted.

        Args:
            due: the same before this request, in seconds of the clock; anything up to `now` for who asked nothing yet.
            running: requests of this caller that are under way.
            now: seconds of a clock that only grows.

        Raises:
            TooManyRequests: with the seconds to wait. The request does not count.
        """
        if self._at_once and running >= self._at_once:
            raise TooManyRequests(f"{self._at_once} requests of this caller are under way already", 1.0)
        due = max(now, due) + self._each
        early = due - now - self._window
        if early > 1e-9:
            raise TooManyRequests("this caller asks too often", early)
        return due


class Rates:
    """Raises where a caller asks too much.

    Args:
        limits: of every caller.
        clock: seconds that only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._due: dict[str, float] = {}
        self._running: dict[str, int] = {}

    def enter(self, caller: str) -> None:
        """Count a request of this caller; `leave` must follow.

        Raises:
            TooManyRequests: with the seconds to wait. The request does not count.
        """
        now, running = self._clock(), self._running.get(caller, 0)
        due = self._limits.admit(self._due.get(caller, now), running, now)
        if len(self._due) >= _FORGET:
            self._due = {name: later for name, later in self._due.items() if later > now}
        self._due[caller], self._running[caller] = due, running + 1

    def leave(self, caller: str) -> None:
        """The request is answered."""
        left = self._running[caller] - 1
        if left:
            self._running[caller] = left
        else:
            del self._running[caller]
