"""Confidence intervals of measurements on images that come in groups (patients, blocks of slices, near copies).

The cluster bootstrap: groups are drawn with replacement, and all images of a drawn group come along, so that images
of one patient do not count as independent. Field & Welsh, "Bootstrapping clustered data", J. R. Statist. Soc. B 69
(2007) 369. Groups are drawn within their most frequent label, because a split is stratified by label too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.validation import Strict

Array = NDArray[np.float64]
LEVEL = 0.95


class Estimate(Strict):
    """A measured value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True)
class Resamples:
    """`group` int64 `[N]`, the group number of every image; `counts` float64 `[R, G]`, how often each was drawn."""

    group: NDArray[np.int64]
    counts: Array

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return self.counts.shape[1]

    def by_group(self, values: NDArray[np.generic]) -> Array:
        """Sums of values `[N, ...]` over the images of each group: `[G, ...]`."""
        sums = np.zeros((self.groups, *values.shape[1:]))
        np.add.at(sums, self.group, values.astype(np.float64))
        return sums

    def totals(self, values: NDArray[np.generic]) -> Array:
        """Sums of values `[N, ...]` over the images of each resample: `[R, ...]`."""
        return np.tensordot(self.counts, self.by_group(values), axes=1)

    def ratio(self, numerator: NDArray[np.generic], denominator: NDArray[np.generic] | None = None) -> Estimate | None:
        """Sum of `numerator` `[N]` over the sum of `denominator` `[N]` (default: ones, which gives the mean)."""
        below = np.ones(len(self.group)) if denominator is None else denominator
        above = self.totals(numerator)
        value = _divide(np.asarray(numerator.sum(), np.float64), np.asarray(below.sum(), np.float64))
        return estimate(float(value), _divide(above, self.totals(below)))


def draw(groups: Sequence[str] | NDArray[np.generic], labels: NDArray[np.int64], count: int, seed: int) -> Resamples:
    """Draw `count` bootstrap resamples of the groups, within the groups' most frequent labels.

    Args:
        groups: group of every image, `[N]`.
        labels: int64 `[N]`, the images' labels.
        count: number of resamples.
        seed: of the draws.

    Raises:
        ValueError: there is no image.
    """
    if not len(labels):
        raise ValueError("there are no images to resample")
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    group = inverse.astype(np.int64)
    total = int(group.max()) + 1
    tally = np.zeros((total, int(labels.max()) + 1), np.int64)
    np.add.at(tally, (group, labels), 1)
    stratum = tally.argmax(axis=1)
    random = np.random.default_rng(seed)
    counts = np.zeros((count, total))
    for label in np.unique(stratum):
        members = np.flatnonzero(stratum == label)
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = random.multinomial(len(members), share, size=count)
    return Resamples(group, counts)


def estimate(value: float, samples: Array) -> Estimate | None:
    """A value with the percentile interval of its resamples `[R]`; None where the value is not defined.

    Resamples in which the value is not defined (NaN) are left out.
    """
    defined = samples[np.isfinite(samples)]
    if not np.isfinite(value) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def _divide(above: Array, below: Array) -> Array:
    """Elementwise quotient, NaN where the divisor is zero."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
