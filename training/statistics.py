"""Is one model better than another? The study's paired tests.

Every result carries the size of the effect and its interval beside the p value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

Scores = NDArray[np.floating]


class NoTest(ValueError):
    """There are too few pairs for a test, or all differences are alike."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Paired scores `a - b`.

    `difference` is the mean with its 95 % interval `low` to `high` from Student's t; `t` and `p` (two-sided) are the
    paired t-test's with `freedom` degrees of freedom; `effect` is Cohen's dz, the mean over the standard deviation of
    the differences (Cohen 1988; Lakens, Front. Psychol. 2013), with its 95 % interval from the non-central t
    (Cumming & Finch 2001). `normal_p` is Shapiro and Wilk's: where it is small, the differences are not normal, and
    `wilcoxon_p` (two-sided signed-rank test) is the one to report.
    """

    difference: float
    low: float
    high: float
    t: float
    freedom: int
    p: float
    effect: float
    effect_low: float
    effect_high: float
    normal_p: float
    wilcoxon_p: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """Images that only the first or only the second model got right, and two two-sided p values.

    `p` is the exact one; `mid_p` takes half the probability of what was observed and is less conservative (Fagerland,
    Lydersen & Laake, BMC Med. Res. Methodol. 13 (2013) 91).
    """

    only_first: int
    only_second: int
    p: float
    mid_p: float


def compare_paired(a: Scores, b: Scores) -> PairedComparison:
    """Compare paired scores, one pair for each run, fold or image: `a`, `b` `[N]`.

    Raises:
        NoTest: there are fewer than three pairs, or all differences are alike.
        ValueError: the lengths differ.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired scores have one axis and the same length; got shapes {a.shape} and {b.shape}")
    if len(a) < 3:
        raise NoTest(f"{len(a)} pairs are too few; the tests need three")
    differences = a.astype(np.float64) - b.astype(np.float64)
    spread = float(differences.std(ddof=1))
    if spread <= 1e-12 * max(1.0, float(np.abs(differences).max())):
        raise NoTest("all differences are alike, which no test can judge")
    mean = float(differences.mean())
    t, p = np.asarray(stats.ttest_1samp(differences, 0.0), np.float64).tolist()
    reach = float(stats.t.ppf(0.975, len(a) - 1)) * spread / len(a) ** 0.5
    low, high = _effect_interval(t, len(a))
    return PairedComparison(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        t=t,
        freedom=len(a) - 1,
        p=p,
        effect=mean / spread,
        effect_low=low,
        effect_high=high,
        normal_p=_p_value(stats.shapiro(differences)),
        wilcoxon_p=_p_value(stats.wilcoxon(differences, method=_wilcoxon_method(differences))),
    )


def _wilcoxon_method(differences: Scores) -> Literal["auto", "approx"]:
    """The exact distribution takes neither ties nor zeros."""
    sizes = np.abs(differences)
    return "auto" if len(np.unique(sizes)) == len(sizes) and sizes.all() else "approx"


def _p_value(result: object) -> float:
    """Of SciPy's test results, which are pairs of statistic and p-value that are not typed so."""
    return float(np.asarray(result, np.float64)[1])


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test on the same images, bool `[N]` each (McNemar 1947; exact: binomial with 1/2).

    It takes images as independent; with several images of one patient its p value is too small.

    Raises:
        ValueError: the lengths differ.
    """
    if first_correct.shape != second_correct.shape:
        raise ValueError(f"shapes {first_correct.shape} and {second_correct.shape} are not those of the same images")
    first = int((first_correct & ~second_correct).sum())
    second = int((second_correct & ~first_correct).sum())
    total = first + second
    p = float(stats.binomtest(first, total, 0.5).pvalue) if total else 1.0
    smaller = min(first, second)
    mid_p = 2 * float(stats.binom.cdf(smaller, total, 0.5)) - float(stats.binom.pmf(smaller, total, 0.5))
    return McNemar(first, second, p, mid_p)


def _effect_interval(t: float, count: int) -> tuple[float, float]:
    """95 % interval of dz: the non-centralities that put `t` at the 97.5th and the 2.5th percentile, over sqrt(N)."""
    step = (1 + t**2 / (2 * (count - 1))) ** 0.5  # about the standard deviation of t

    def excess(shift: float, tail: float) -> float:
        return float(stats.nct.cdf(t, count - 1, shift)) - tail

    def edge(tail: float) -> float:
        # In steps: far out, SciPy's distribution is not a number.
        low = high = t
        while excess(low, tail) < 0:
            low -= step
        while excess(high, tail) > 0:
            high += step
        return float(np.asarray(brentq(lambda shift: excess(shift, tail), low, high)))

    return edge(0.975) / count**0.5, edge(0.025) / count**0.5
