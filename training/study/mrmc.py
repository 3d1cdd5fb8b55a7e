"""Means over readers and cases, and their difference between the arms, for other readers and other cases.

The method of Obuchowski & Rockette (Commun. Stat. Simul. Comput. 24 (1995) 285) with the degrees of freedom of Hillis
(Stat. Med. 26 (2007) 596). Readings of one reader are alike, and so are readings of one case, so that 6 readers of 60
cases are not 360 independent answers. The method takes the spread between readers from the readers, the covariance
between readers that the shared cases bring about from the cases, and refers the difference to Student's t with degrees
of freedom that stay low where there are few readers. A bootstrap over six readers does not do that: its intervals are
too narrow. For readers who are in one arm only: Hillis, Stat. Med. 33 (2014) 330.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from service.validation import Strict
from training.bootstrap import Estimate
from training.delong import areas

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Measure = Callable[[Array], tuple[Array, Array]]
"""From the values of S readings of all cases `[S, C]` to a figure for each `[S]` and their covariance `[S, S]`."""

ANY = (-np.inf, np.inf)
SHARE = (0.0, 1.0)


class Difference(Strict):
    """With less without, its 95 % interval, and the two-sided test of no difference: `t` with `freedom` degrees."""

    value: float
    low: float
    high: float
    t: float | None
    freedom: float | None
    p: float | None


class Pooled(Strict):
    """A figure in both arms, over all readers and cases. `cases` says on how many it stands."""

    without: Estimate
    with_: Estimate
    difference: Difference
    cases: int


def mean_of_cases(values: Array) -> tuple[Array, Array]:
    """The measure of every share: means over the cases."""
    return values.mean(axis=1), np.atleast_2d(np.cov(values)) / values.shape[1]


def area_under_curve(diseased: Flags) -> Measure:
    """The measure AUROC, with the covariance of DeLong; `diseased` bool `[C]`."""
    return lambda values: areas(values, diseased)


def pooled(
    values: Array,
    readers: tuple[NDArray[np.int64], NDArray[np.int64]],
    measure: Measure = mean_of_cases,
    limits: tuple[float, float] = ANY,
) -> Pooled | None:
    """Both arms and their difference.

    Args:
        values: `[2, R, C]`.
        readers: numbers of the readers without and with; the same in a crossover, none in common otherwise.
        measure: the figure.
        limits: between which the figure lies; intervals of an arm are cut there.

    Returns:
        None where there are fewer than three cases.

    Raises:
        ValueError: the measure's own.
    """
    if values.shape[2] < 3:
        return None
    rows = np.concatenate([values[0][readers[0]], values[1][readers[1]]])
    figures, covariance = measure(rows)
    cut = len(readers[0])
    without, with_ = (
        single(figures[part], covariance[part, part], values.shape[2], limits)
        for part in (slice(0, cut), slice(cut, None))
    )
    found = contrast(figures, covariance, cut, paired=np.array_equal(*readers))
    return Pooled(without=without, with_=with_, difference=found, cases=values.shape[2])


def single(figures: Array, covariance: Array, cases: int, limits: tuple[float, float] = ANY) -> Estimate:
    """The mean over readers of one arm, with the interval of Hillis (2014) for one test.

    Where all readers gave the same answer to every case there is no spread to go by. A share then gets the interval of
    Clopper and Pearson, as if the readers were one; anything else an interval of no width.

    Args:
        figures: `[R]`.
        covariance: `[R, R]`.
        cases: how many there are.
        limits: between which the figure lies, (0, 1) for a share; the interval is cut there.
    """
    mean = float(figures.mean())
    found = difference(mean, [(float(figures.var(ddof=1)) / len(figures), len(figures))], _between(covariance))
    low, high = found.low, found.high
    if found.freedom is None and limits == SHARE:
        exact = stats.binomtest(round(mean * cases), cases).proportion_ci()
        low, high = float(exact.low), float(exact.high)
    return Estimate(value=mean, low=max(low, limits[0]), high=min(high, limits[1]))


def contrast(figures: Array, covariance: Array, cut: int, *, paired: bool) -> Difference:
    """With less without.

    Args:
        figures: `[S]`, those of the readers without first.
        covariance: `[S, S]`.
        cut: how many are without.
        paired: the readers are the same in both arms, in the same order.
    """
    without, with_ = slice(0, cut), slice(cut, None)
    value = float(figures[with_].mean() - figures[without].mean())
    across = covariance[without, with_]
    if paired:
        shared = 2 * (
            (_between(covariance[without, without]) + _between(covariance[with_, with_])) / 2 - _between(across)
        )
        terms = [(float((figures[with_] - figures[without]).var(ddof=1)) / cut, cut)]
    else:
        shared = _between(covariance[without, without]) + _between(covariance[with_, with_]) - 2 * float(across.mean())
        terms = [
            (float(figures[part].var(ddof=1)) / len(figures[part]), len(figures[part])) for part in (without, with_)
        ]
    return difference(value, terms, shared)


def difference(value: float, terms: list[tuple[float, int]], shared: float) -> Difference:
    """The test and interval from the parts of the variance.

    Args:
        value: the difference.
        terms: for each group of readers the variance of its mean and the number of its readers. For the same readers in
            both arms one term: the variance of their differences over their number, 2 MS(T x R) / R.
        shared: what the shared cases add, 2 (Cov2 - Cov3) for the same readers in both arms; below zero it counts as
            zero.
    """
    variance = sum(part for part, _ in terms)
    total = variance + max(shared, 0.0)
    if total <= 1e-15:
        return Difference(value=value, low=value, high=value, t=None, freedom=None, p=None)
    spread = sum(part**2 / (count - 1) for part, count in terms)
    freedom = min(total**2 / spread, 1e6) if spread > 0 else 1e6
    error = total**0.5
    reach = float(stats.t.ppf(0.975, freedom)) * error
    t = value / error
    p = 2 * float(stats.t.sf(abs(t), freedom))
    return Difference(value=value, low=value - reach, high=value + reach, t=t, freedom=freedom, p=p)


def _between(covariance: Array) -> float:
    """Mean covariance between different readers, of a square part of the matrix."""
    count = len(covariance)
    return float((covariance.sum() - np.trace(covariance)) / (count * (count - 1)))
