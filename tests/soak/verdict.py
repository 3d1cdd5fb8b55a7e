"""Whether a quantity stays flat: a robust slope over the second half of a run, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import theilslopes

_STRETCHES, _QUIET = 20, 0.1


@dataclass(frozen=True, slots=True)
class Flatness:
    """Growth over the second half of a run (Theil-Sen slope times its length), with the 95 % interval."""

    growth: float
    low: float
    high: float
    bound: float

    @property
    def flat(self) -> bool:
        """Whether even the interval's upper end is within the bound: too short a run shows nothing."""
        return self.high <= self.bound


def flatness(seconds: ArrayLike, values: ArrayLike, bound: float) -> Flatness:
    """Judge samples of a run; in its first half threads, caches and the allocator's pools fill.

    Of each of up to twenty stretches of the second half counts what is there even at quiet moments (the tenth
    percentile): a batch in work is no growth, a leak is there always, and neighbours in time, which are alike, do not
    make the interval narrower than it is.

    Args:
        seconds: of the samples, rising.
        values: one for each.
        bound: most that the second half may grow by.

    Raises:
        ValueError: fewer than ten samples in the second half.
    """
    at, found = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    late = at >= (at[0] + at[-1]) / 2
    if late.sum() < 10:
        raise ValueError("too few samples: at least ten are needed in the second half")
    stretches = np.array_split(np.flatnonzero(late), min(_STRETCHES, late.sum() // 2))
    floors = [np.quantile(found[one], _QUIET) for one in stretches]
    fitted = np.asarray(theilslopes(floors, [at[one].mean() for one in stretches], 0.95), np.float64)
    slope, _, low, high = (fitted * (at[late][-1] - at[late][0])).round(3).tolist()
    return Flatness(slope, low, high, bound)
