"""How often work is tried, and how long it waits in between."""

from __future__ import annotations

import random
from dataclasses import dataclass

from service.errors import Overloaded, RadiolucentError, RemoteUnavailable


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a study is tried before it is dead.

    Attributes:
        attempts: most runs of one stage; for what the archive does not have, some three minutes.
        away: the same where the archive is away, or there is too much to do: a night's maintenance is no reason to die.
        crashes: most deaths of a worker that had it: what kills workers must not go round for ever. A study that
            was there when a worker died runs alone in its process, so that no other is blamed for it.
        first_s: delay after the first failure; doubles with every further one.
        longest_s: longest delay.
    """

    attempts: int = 8
    away: int = 100
    crashes: int = 4
    first_s: float = 2.0
    longest_s: float = 900.0

    def ends(self, error: RadiolucentError, attempts: int) -> bool:
        """Whether this many runs of a stage were enough."""
        passing = isinstance(error, RemoteUnavailable | Overloaded)
        return attempts >= (self.away if passing else self.attempts)

    def delay(self, attempts: int) -> float:
        """Seconds until the next run: between half and all of the doubled delay, so that many do not come at once."""
        full = min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 30))
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - nothing to be guessed
