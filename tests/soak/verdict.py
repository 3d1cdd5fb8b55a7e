"""Whether a quantity stays flat: a robust slope over the second half of a run, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes


@dataclass(frozen=True, slots=True)
class Flatness:
    """Growth over the second half of a run (Theil-Sen slope times its length), with the 95 % interval.

    Samples that lie close in time are alike, so that the true interval is somewhat wider.
    """

    growth: float
    low: float
    high: float
    bound: float

    @property
    def flat(self) -> bool:
        """Whether even the interval's upper end is within the bound: too short a run shows nothing."""
        return self.high <= self.bound


def flatness(seconds: Sequence[float], values: Sequence[float], bound: float) -> Flatness:
    """Judge samples of a run; in its first half threads, caches and the allocator's pools fill.

    Args:
        seconds: of the samples, rising.
        values: one for each.
        bound: most that the second half may grow by.

    Raises:
        ValueError: fewer than ten samples in the second half.
    """
    at, found = np.asarray(seconds), np.asarray(values, np.float64)
    late = at >= (at[0] + at[-1]) / 2
    if late.sum() < 10:
        raise ValueError("too few samples: at least ten are needed in the second half")
    slope, _, low, high = theilslopes(found[late], at[late], 0.95)
    length = float(at[late][-1] - at[late][0])
    return Flatness(*(round(float(one) * length, 3) for one in (slope, low, high)), bound=bound)
