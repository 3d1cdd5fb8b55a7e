"""Where a reader is in the study: at a case, in the washout, or done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.reader_study.design import Arm

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Reading:
    """A slot of the schedule, and what became of it. Times in seconds since 1970.

    Attributes:
        id: nobody guesses it; the only name of the case that a browser sees.
        case: code.
        arm: with or without explanation.
        period: 1 or 2.
        position: from 1, within the period.
        training: with feedback.
        started: when the case was first shown; None where it was not.
        answered: when the answer was saved; it is final.
        revision: of the draft.
        opinion: JSON of an `Opinion`, or empty.
    """

    id: str
    case: str
    arm: Arm
    period: int
    position: int
    training: bool
    started: float | None
    answered: float | None
    revision: int
    opinion: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader is.

    Attributes:
        state: at a case, between the periods, or done.
        done: readings that are answered.
        total: readings of the reader.
        in_period: readings of the current period.
        current: the reading to be made.
        opens: the end of the washout, in seconds since 1970.
    """

    state: Literal["reading", "washout", "finished"]
    done: int
    total: int
    in_period: int = 0
    current: Reading | None = None
    opens: float | None = None


def place_of(readings: Sequence[Reading], washout_days: float, now: float) -> Place:
    """Find the first reading that is not answered, and whether it may be made yet.

    The washout of a reader begins with the last answer of the period before.

    Args:
        readings: all of one reader, in order.
        washout_days: between the periods.
        now: seconds since 1970.
    """
    done, total = sum(reading.answered is not None for reading in readings), len(readings)
    current = next((reading for reading in readings if reading.answered is None), None)
    if current is None:
        return Place("finished", done, total)
    in_period = sum(reading.period == current.period for reading in readings)
    before = [reading.answered or 0.0 for reading in readings if reading.period < current.period]
    opens = max(before) + washout_days * DAY if before else 0.0
    if now < opens:
        return Place("washout", done, total, in_period, opens=opens)
    return Place("reading", done, total, in_period, current)
