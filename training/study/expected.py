"""What a simulated study is expected to show, computed from its parameters, and whether an analysis found it.

Every figure is an expectation over other readers, other cases and other answers: normal deviations are integrated out
(Gauss-Hermite quadrature for the logistic ones; closed forms of the normal distribution for the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np
from scipy import stats
from scipy.special import expit

from service.validation import Strict
from training.bootstrap import Estimate
from training.study.mrmc import Pooled
from training.study.simulate import CLASSES, Parameters

_OTHERS = len(CLASSES) - 1
_POINTS = 60


class _Interval(Protocol):
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Recovered(Strict):
    """A parameter's mark on the results: what is expected, what was found, and whether its 95 % interval has it."""

    parameter: str
    figure: str
    expected: float
    found: Estimate
    inside: bool


def recover(
    parameters: Parameters, pooled: Mapping[str, Pooled], ratings: Mapping[str, Estimate | None]
) -> list[Recovered]:
    """Compare every figure that the parameters determine with the one that an analysis found.

    Args:
        parameters: what the study was made from.
        pooled: of the analysis.
        ratings: means of the Likert items, by name.
    """
    found: dict[str, _Interval | None] = {}
    for name, value in pooled.items():
        found |= {
            f"{name}, without": value.without,
            f"{name}, with": value.with_,
            f"{name}, difference": value.difference,
        }
    found |= {f"mean rating, {name}": value for name, value in ratings.items()}
    rows: list[Recovered] = []
    for figure, (parameter, expected) in expectations(parameters).items():
        value = found.get(figure)
        if value is not None:
            estimate = Estimate(value=value.value, low=value.low, high=value.high)
            inside = value.low <= expected <= value.high
            rows.append(Recovered(parameter=parameter, figure=figure, expected=expected, found=estimate, inside=inside))
    return rows


def expectations(parameters: Parameters) -> dict[str, tuple[str, float]]:
    """By figure: the parameter that it shows, and its expectation."""
    p = parameters
    without, own = own_accuracy(p, shown=False), own_accuracy(p, shown=True)
    shown = partial(_mix, p.reliance)
    accuracy = without, shown(own, p.model_accuracy)
    sensitivity = _called(without), shown(_called(own), _called(p.model_accuracy))
    over = (1 - without) / _OTHERS, shown((1 - own) / _OTHERS, 1.0)
    under = 1 - without, shown(1 - own, 0.0)
    confidence = _rounded_confidence(p, 0.0), _rounded_confidence(p, p.confidence_gain)
    found = {
        "accuracy, without": ("reader skill", accuracy[0]),
        "accuracy, difference": ("effect of the explanation", accuracy[1] - accuracy[0]),
        "sensitivity, difference": ("effect on sensitivity", sensitivity[1] - sensitivity[0]),
        "specificity, difference": ("effect on specificity", accuracy[1] - accuracy[0]),
        "over_reliance, difference": ("reliance on a wrong model", over[1] - over[0]),
        "under_reliance, difference": ("reliance on a right model", under[1] - under[0]),
        "seconds, without": ("time without", p.seconds),
        "seconds, difference": ("time, ratio", p.ratio),
        "confidence, without": ("confidence without", confidence[0]),
        "confidence, difference": ("gain in confidence", confidence[1] - confidence[0]),
    }
    spread = _hypotenuse(p.rating_reader_sd, p.rating_case_sd, p.rating_sd)
    for item in p.items:
        found[f"mean rating, {item.name}"] = (f"Likert mean: {item.name}", rounded_mean(item.mean, spread, 1, 5))
    return found


def own_accuracy(parameters: Parameters, *, shown: bool) -> float:
    """Probability that a reader's own answer is right, over readers, cases, and (in a crossover) both periods."""
    p = parameters
    spread = _hypotenuse(p.reader_sd, p.case_sd, p.benefit_sd if shown else 0.0)
    points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    levels = [0.0, p.learning] if p.design == "crossover" else [0.0]
    means = [
        np.sum(weights * expit(p.skill + p.benefit * shown + level + spread * points)) / np.sum(weights)
        for level in levels
    ]
    return float(np.mean(means))


def rounded_mean(mean: float, spread: float, low: int, high: int) -> float:
    """Expectation of a normal variable, rounded and cut to whole numbers from `low` to `high`.

    It is `low` and the probability of each number above that is reached.
    """
    edges = np.arange(low, high) + 0.5
    return low + float(stats.norm.sf(edges, mean, spread).sum())


def _rounded_confidence(p: Parameters, gain: float) -> float:
    spread = _hypotenuse(p.confidence_reader_sd, p.confidence_case_sd, p.confidence_sd)
    return rounded_mean(p.confidence + gain, spread, 0, 100)


def _mix(reliance: float, own: float, models: float) -> float:
    return (1 - reliance) * own + reliance * models


def _called(right: float) -> float:
    """Probability to call disease in a diseased case: the right class, or another one of disease."""
    return right + (1 - right) * (_OTHERS - 1) / _OTHERS


def _hypotenuse(*deviations: float) -> float:
    return float(np.sqrt(np.sum(np.square(deviations))))
