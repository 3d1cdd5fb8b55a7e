"""What each reader did; the intervals speak of other cases, not of other readers."""

from __future__ import annotations

import numpy as np
from scipy import stats

from service.validation import Strict
from training.bootstrap import Estimate
from training.statistics import McNemar, mcnemar
from training.study.readings import Readings, Values
from training.study.records import ARMS, Arm


class ReaderArm(Strict):
    """One reader in one arm. Shares with Wilson's interval (J. Am. Stat. Assoc. 22 (1927) 209), of cases only."""

    accuracy: Estimate
    sensitivity: Estimate | None
    specificity: Estimate | None
    median_seconds: float


class ReaderResult(Strict):
    """One reader.

    In a crossover also the change in accuracy with the adjusted Wald interval of Bonett & Price (J. Educ.
    Behav. Stat. 37 (2012) 479) and McNemar's test, whose first is with the explanation.
    """

    reader: str
    arms: dict[Arm, ReaderArm]
    difference: Estimate | None
    mcnemar: McNemar | None


def individual_results(readings: Readings) -> tuple[ReaderResult, ...]:
    """One result for each reader."""
    return tuple(_reader(readings, number) for number in range(len(readings.readers)))


def _reader(readings: Readings, number: int) -> ReaderResult:
    arms: dict[Arm, ReaderArm] = {
        arm: _reader_arm(readings, number, place)
        for place, arm in enumerate(ARMS)
        if number in readings.readers_of[place]
    }
    if len(arms) < 2:
        return ReaderResult(reader=readings.readers[number], arms=arms, difference=None, mcnemar=None)
    without, with_ = readings.correct[:, number] == 1
    changes = mcnemar(with_, without)
    return ReaderResult(
        reader=readings.readers[number], arms=arms, difference=_change(changes, len(with_)), mcnemar=changes
    )


def _reader_arm(readings: Readings, number: int, arm: int) -> ReaderArm:
    called, diseased = readings.called[arm, number], readings.diseased
    return ReaderArm(
        accuracy=_share(readings.correct[arm, number]),
        sensitivity=_share(called[diseased]) if diseased.any() else None,
        specificity=_share(1 - called[~diseased]) if not diseased.all() else None,
        median_seconds=float(np.median(readings.seconds[arm, number])),
    )


def _share(values: Values) -> Estimate:
    count, total = round(float(values.sum())), len(values)
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(value=count / total, low=float(interval.low), high=float(interval.high))


def _change(changes: McNemar, cases: int) -> Estimate:
    gained, lost = ((count + 1) / (cases + 2) for count in (changes.only_first, changes.only_second))
    reach = float(stats.norm.ppf(0.975)) * ((gained + lost - (gained - lost) ** 2) / (cases + 2)) ** 0.5
    value = (changes.only_first - changes.only_second) / cases
    return Estimate(value=value, low=max(gained - lost - reach, -1.0), high=min(gained - lost + reach, 1.0))
