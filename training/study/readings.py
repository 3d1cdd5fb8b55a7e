"""A study as arrays: one axis each for arm (0 without, 1 with the explanation), reader and case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.study.records import ARMS, Case, Reading, Study, StudyError, load

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read. NaN where there is no reading: in a parallel design half of the readers have none in an arm.

    Attributes:
        study: what `study.json` says.
        readers: codes `[R]`.
        cases: names `[C]`, of those that every reader has read (in both arms, in a crossover).
        left_out: how many cases were not, and are left out of everything.
        truth: int64 `[C]`, index of the class.
        model: int64 `[C]`, index of the class that the model gave.
        diagnosis: `[2, R, C]`, index of the class.
        confidence: `[2, R, C]`, 0 to 100.
        seconds: `[2, R, C]`.
        period: `[2, R, C]`, 1 or 2.
        ratings: `[I, R, C]`, 1 to 5, of the study's Likert items; they belong to the arm with the explanation.
    """

    study: Study
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    left_out: int
    truth: NDArray[np.int64]
    model: NDArray[np.int64]
    diagnosis: Values
    confidence: Values
    seconds: Values
    period: Values
    ratings: Values

    @property
    def crossover(self) -> bool:
        """Whether every reader reads in both arms."""
        return self.study.design == "crossover"

    @property
    def readers_of(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the readers without and with the explanation."""
        without, with_ = np.isfinite(self.diagnosis)
        return np.flatnonzero(without.any(axis=1)), np.flatnonzero(with_.any(axis=1))

    @property
    def diseased(self) -> Flags:
        """Whether the truth is a positive class, bool `[C]`."""
        return self._positive()[self.truth]

    @property
    def model_wrong(self) -> Flags:
        """Whether the model's class is not the truth, bool `[C]`."""
        return self.model != self.truth

    @property
    def correct(self) -> Values:
        """`[2, R, C]`: 1 where the diagnosis is the truth."""
        return self._where(self.diagnosis == self.truth)

    @property
    def called(self) -> Values:
        """`[2, R, C]`: 1 where the diagnosis is a positive class."""
        read = np.isfinite(self.diagnosis)
        return self._where(self._positive()[np.where(read, self.diagnosis, 0).astype(np.int64)])

    @property
    def followed(self) -> Values:
        """`[2, R, C]`: 1 where the diagnosis is the model's class, whether the model was seen or not."""
        return self._where(self.diagnosis == self.model)

    @property
    def suspicion(self) -> Values:
        """`[2, R, C]`, -100 to 100: the confidence, negative where no disease was called; for ROC curves."""
        return np.where(self.called == 1, self.confidence, -self.confidence)

    def _positive(self) -> Flags:
        return np.array([name in self.study.positive for name in self.study.classes])

    def _where(self, flags: Flags) -> Values:
        return np.where(np.isfinite(self.diagnosis), flags, np.nan)


def read_study(folder: Path, without: Sequence[str] = ()) -> Readings:
    """Read an exported study.

    Args:
        folder: of `study.json`, `cases.csv` and `readings.csv`.
        without: codes of readers to leave out, such as one who gave up.

    Raises:
        FileNotFoundError: a file is missing.
        StudyError: a file is broken, the design was not kept to, or too little was read.
        ValidationError: `study.json` lacks something (pydantic's).
    """
    study, cases, readings = load(folder)
    if absent := set(without) - {reading.reader for reading in readings}:
        raise StudyError(f"{len(absent)} of the readers to leave out are not in the study")
    return arrange(study, cases, [reading for reading in readings if reading.reader not in without])


def arrange(study: Study, cases: Sequence[Case], readings: Sequence[Reading]) -> Readings:
    """Arrays from checked lines, of the cases that all readers have read.

    Raises:
        StudyError: the design was not kept to, or there are fewer than two readers an arm or three cases.
    """
    readers = tuple(sorted({reading.reader for reading in readings}))
    reader_of = {code: number for number, code in enumerate(readers)}
    case_of = {case.case: number for number, case in enumerate(cases)}
    class_of = {name: number for number, name in enumerate(study.classes)}
    shape = (2, len(readers), len(cases))
    diagnosis, confidence, seconds, period = (np.full(shape, np.nan) for _ in range(4))
    ratings = np.full((len(study.items), *shape[1:]), np.nan)
    for reading in readings:
        place = (ARMS.index(reading.arm), reader_of[reading.reader], case_of[reading.case])
        diagnosis[place] = class_of[reading.diagnosis]
        confidence[place], seconds[place], period[place] = reading.confidence, reading.seconds, reading.period
        if reading.arm == "with":
            ratings[:, place[1], place[2]] = [np.nan if rating is None else rating for rating in reading.ratings]
    whole = _whole(study, np.isfinite(diagnosis))
    return Readings(
        study=study,
        readers=readers,
        cases=tuple(case.case for case, kept in zip(cases, whole, strict=True) if kept),
        left_out=int((~whole).sum()),
        truth=np.array([class_of[case.truth] for case in cases], np.int64)[whole],
        model=np.array([class_of[case.model_label] for case in cases], np.int64)[whole],
        diagnosis=diagnosis[..., whole],
        confidence=confidence[..., whole],
        seconds=seconds[..., whole],
        period=period[..., whole],
        ratings=ratings[..., whole],
    )


def _whole(study: Study, read: Flags) -> Flags:
    """Which cases `[C]` everyone has read, from `read` `[2, R, C]`."""
    arms = np.stack([arm.any(axis=1) for arm in read])
    if study.design == "parallel" and bool(arms.all(axis=0).any()):
        raise StudyError("a reader of a parallel study has read in both arms")
    expected = np.ones_like(arms) if study.design == "crossover" else arms
    whole = np.array([bool(case.all()) for case in np.moveaxis(read | ~expected[..., None], 2, 0)])
    if expected.sum(axis=1).min() < 2 or whole.sum() < 3:
        readers, cases = int(expected.sum(axis=1).min()), int(whole.sum())
        raise StudyError(
            f"{readers} readers in an arm and {cases} cases that all of them have read are too few: it takes 2 and 3; "
            "a reader who gave up can be left out (--leave-out CODE)"
        )
    return whole
