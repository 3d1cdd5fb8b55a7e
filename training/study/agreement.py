"""Do readers agree? Fleiss' kappa, Krippendorff's alpha, the intraclass correlation.

Kappa: Fleiss, Psychol. Bull. 76 (1971) 378. Alpha: Krippendorff, Content Analysis (2004), ch. 11; it allows for gaps.
ICC(2,1), two-way random, absolute agreement, one reader: Shrout & Fleiss, Psychol. Bull. 86 (1979) 420. The intervals
of kappa and alpha are percentiles of resampled cases, with the readers as they are; that of the ICC is pingouin's,
which rounds it to two digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.validation import Strict
from training.bootstrap import Estimate, estimate

Array = NDArray[np.float64]
Level = Literal["nominal", "ordinal", "interval"]


class Agreement(Strict):
    """Between readers, for one question. None where a coefficient is not defined, as where all answers are the same."""

    readers: int
    cases: int
    fleiss_kappa: Estimate | None = None
    krippendorff_alpha: Estimate | None
    level: Level
    icc: Estimate | None = None


def agreement(values: Array, level: Level, *, resamples: int, seed: int) -> Agreement:
    """The coefficients that fit the level: kappa and alpha for classes, alpha and ICC for ratings and numbers.

    Args:
        values: `[R, C]`, NaN where there is no answer.
        level: of measurement.
        resamples: of the cases, for the intervals.
        seed: of the resamples.
    """
    full = values[:, np.isfinite(values).all(axis=0)]
    random = np.random.default_rng(seed)
    draws = random.integers(0, values.shape[1], (resamples, values.shape[1]))
    return Agreement(
        readers=values.shape[0],
        cases=values.shape[1],
        fleiss_kappa=_resampled(fleiss, values, draws) if level == "nominal" else None,
        krippendorff_alpha=_resampled(lambda drawn: alpha(drawn, level), values, draws),
        level=level,
        icc=None if level == "nominal" else intraclass(full),
    )


def fleiss(values: Array) -> float:
    """Fleiss' kappa of classes `[R, C]`, from cases that all readers answered; NaN where it is not defined."""
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    full = values[:, np.isfinite(values).all(axis=0)]
    if full.shape[1] == 0 or len(np.unique(full)) < 2:
        return float("nan")
    counts, _ = aggregate_raters(full.T.astype(np.int64))
    return float(fleiss_kappa(counts))


def alpha(values: Array, level: Level) -> float:
    """Krippendorff's alpha of `[R, C]` with gaps; NaN where it is not defined."""
    import krippendorff

    answered = np.isfinite(values)
    paired = values[:, answered.sum(axis=0) > 1]
    if len(np.unique(paired[np.isfinite(paired)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=values, level_of_measurement=level))


def intraclass(values: Array) -> Estimate | None:
    """ICC(2,1) of `[R, C]` without gaps; None where there are too few cases, no spread or no error."""
    import pandas as pd
    import pingouin as pg

    if values.shape[1] < 3 or np.ptp(values) == 0:
        return None
    reader, case = np.indices(values.shape)
    table = pd.DataFrame({"case": case.ravel(), "reader": reader.ravel(), "value": values.ravel()})
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DeprecationWarning)  # pingouin's use of pandas
        found = pg.intraclass_corr(table, targets="case", raters="reader", ratings="value").set_index("Type")
    low, high = found.loc["ICC(A,1)", "CI95"]
    value = float(found.loc["ICC(A,1)", "ICC"])
    if not np.isfinite([value, low, high]).all():  # readers differ by a constant or not at all: no error to go by
        return None
    return Estimate(value=value, low=float(low), high=float(high))


def _resampled(coefficient: Callable[[Array], float], values: Array, draws: NDArray[np.int64]) -> Estimate | None:
    samples = np.array([coefficient(values[:, drawn]) for drawn in draws])
    return estimate(coefficient(values), samples)
