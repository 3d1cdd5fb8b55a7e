"""AUROC of several scores on the same cases, with their covariance.

DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837: the area is the mean of the Mann-Whitney kernel (1 where the
positive case has the higher score, 1/2 for a tie), and its covariance follows from the kernel's means for each case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AreaComparison:
    """AUROC of two scores, `difference` first less second with its 95 % interval (Wald), `z`, and two-sided `p`."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    z: float
    p: float


def areas(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """AUROC `[S]` and its covariance `[S, S]`.

    Args:
        scores: `[S, N]`, each higher for cases that look more positive.
        positive: bool `[N]`, the truth.

    Raises:
        ValueError: there are fewer than two positive or two negative cases.
    """
    diseased, healthy = scores[:, positive].astype(np.float64), scores[:, ~positive].astype(np.float64)
    if diseased.shape[1] < 2 or healthy.shape[1] < 2:
        raise ValueError("an AUROC's variance needs two positive and two negative cases")
    by_diseased, by_healthy = _shares_below(healthy, diseased), 1 - _shares_below(diseased, healthy)
    covariance = np.atleast_2d(np.cov(by_diseased)) / diseased.shape[1]
    covariance = covariance + np.atleast_2d(np.cov(by_healthy)) / healthy.shape[1]
    return by_diseased.mean(axis=1), covariance


def compare_areas(
    first: NDArray[np.floating], second: NDArray[np.floating], positive: NDArray[np.bool_]
) -> AreaComparison:
    """Compare the AUROC of two scores `[N]` on the same cases.

    Where both scores rank alike, the difference is 0 with an interval of no width, and p is 1.

    Raises:
        ValueError: there are fewer than two positive or two negative cases.
    """
    values, covariance = areas(np.stack([first, second]), positive)
    difference = float(values[0] - values[1])
    error = float(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)) ** 0.5
    z = difference / error if error > 1e-12 else 0.0
    reach = float(stats.norm.ppf(0.975)) * error
    p = 2 * float(stats.norm.sf(abs(z)))
    return AreaComparison(float(values[0]), float(values[1]), difference, difference - reach, difference + reach, z, p)


def _shares_below(reference: Array, values: Array) -> Array:
    """For every value `[S, M]` the share of the reference `[S, N]` below it, ties counting half; by sorting."""
    shares = np.empty_like(values)
    for row, (those, these) in enumerate(zip(reference, values, strict=True)):
        ordered = np.sort(those)
        below, upto = np.searchsorted(ordered, these, "left"), np.searchsorted(ordered, these, "right")
        shares[row] = (below + upto) / (2 * len(those))
    return shares
