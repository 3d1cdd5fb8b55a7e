"""How often, and how many at once, one caller may ask. Counted in this process: workers do not tell each other.

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


class Rates:
    """Raises where a caller asks too much.

    Args:
        rate: such as `600/minute`: so many evenly spread, or at once after a pause; empty: any.
        at_once: most requests of one caller that may be under way; 0: any.
        clock: seconds that only grow.
    """

    def __init__(self, rate: str = "", at_once: int = 0, clock: Callable[[], float] = monotonic) -> None:
        found = re.fullmatch(RATE_PATTERN, rate)
        self._window = _UNITS[found[2]] if found else 0.0
        self._each = self._window / int(found[1]) if found else 0.0
        self._at_once, self._clock = at_once, clock
        self._due: dict[str, float] = {}
        self._running: dict[str, int] = {}

    def enter(self, caller: str) -> None:
        """Count a request of this caller; `leave` must follow.

        Raises:
            TooManyRequests: with the seconds to wait. The request does not count.
        """
        if self._at_once and self._running.get(caller, 0) >= self._at_once:
            raise TooManyRequests(f"{self._at_once} requests of this caller are under way already", 1.0)
        if self._each:
            self._count(caller)
        self._running[caller] = self._running.get(caller, 0) + 1

    def leave(self, caller: str) -> None:
        """The request is answered."""
        left = self._running[caller] - 1
        if left:
            self._running[caller] = left
        else:
            del self._running[caller]

    def _count(self, caller: str) -> None:
        now = self._clock()
        due = max(now, self._due.get(caller, now)) + self._each
        early = due - now - self._window
        if early > 1e-9:
            raise TooManyRequests("this caller asks too often", early)
        if len(self._due) >= _FORGET:
            self._due = {name: later for name, later in self._due.items() if later > now}
        self._due[caller] = due
