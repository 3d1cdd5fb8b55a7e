"""How many readers and cases does a study need? Power of the test that the analysis will make.

Hillis, Obuchowski & Berbaum, Acad. Radiol. 18 (2011) 129: the non-central distribution of Obuchowski and Rockette's
statistic under variances that are expected, or were measured in a pilot study.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from training.study.readings import Readings


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the change in a reading of the same case by the same reader, with less without; all are variances.

    Attributes:
        reader: between readers (some gain by the explanation, others do not).
        case: between cases, common to all readers (some explanations help everybody, others nobody).
        rest: what is left.
    """

    reader: float
    case: float
    rest: float


def spread_of_shares(
    without: float, with_: float, *, correlation: float, reader_sd: float, case_share: float
) -> Spread:
    """The spread for a share such as accuracy.

    Args:
        without: expected share, between 0 and 1.
        with_: the same with the explanation.
        correlation: between the two answers of a reader to a case, of 0 or 1 each.
        reader_sd: standard deviation between the readers' true changes.
        case_share: share of the variance of a change that all readers have in common.

    Raises:
        ValueError: no answers can have these shares and this correlation, or the readers differ more than answers can.
    """
    a, b = without * (1 - without), with_ * (1 - with_)
    both = correlation * (a * b) ** 0.5 + without * with_
    if not max(0.0, without + with_ - 1) <= both <= min(without, with_):
        raise ValueError(f"answers that are right in {without:g} and {with_:g} cannot correlate by {correlation:g}")
    change = a + b - 2 * correlation * (a * b) ** 0.5
    if reader_sd**2 >= change:
        raise ValueError(f"readers cannot differ by {reader_sd:g}: a change varies by {change**0.5:.3f} in all")
    rest = change - reader_sd**2
    return Spread(reader_sd**2, case_share * rest, (1 - case_share) * rest)


def spread_of_pilot(readings: Readings) -> tuple[float, Spread]:
    """The change in accuracy of a pilot crossover, and its spread.

    Raises:
        ValueError: the pilot is not a crossover.
    """
    if not readings.crossover:
        raise ValueError("a pilot that is no crossover does not say how a reader's answers change")
    changes = readings.correct[1] - readings.correct[0]
    readers, cases = changes.shape
    centre = changes - changes.mean(axis=1, keepdims=True) - changes.mean(axis=0) + changes.mean()
    rest = float((centre**2).sum()) / ((readers - 1) * (cases - 1))
    of_readers = float(changes.mean(axis=1).var(ddof=1)) - rest / cases
    of_cases = float(changes.mean(axis=0).var(ddof=1)) - rest / readers
    return float(changes.mean()), Spread(max(of_readers, 0.0), max(of_cases, 0.0), rest)


def power(change: float, spread: Spread, readers: int, cases: int, level: float = 0.05) -> float:
    """Probability that the two-sided test of a crossover finds the change.

    Args:
        change: expected, with less without.
        spread: of the changes.
        readers: at least 2.
        cases: at least 3, of the kind that the figure stands on (the diseased ones for sensitivity).
        level: of the test.
    """
    of_readers = (spread.reader + spread.rest / cases) / readers
    total = of_readers + spread.case / cases
    freedom = total**2 * (readers - 1) / of_readers**2
    if change == 0:
        return level
    critical = float(stats.f.ppf(1 - level, 1, freedom))
    return float(stats.ncf.sf(critical, 1, freedom, change**2 / total))


def needed_cases(change: float, spread: Spread, readers: int, goal: float, most: int = 5000) -> int | None:
    """The fewest cases with which that many readers reach a power; None where no number up to `most` does."""
    if power(change, spread, readers, most) < goal:
        return None
    low, high = 3, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(change, spread, readers, middle) >= goal else (middle + 1, high)
    return low
