"""The files of a reader study: `study.json`, `cases.csv`, `readings.csv`, checked line by line."""

from __future__ import annotations

import csv
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.datasets.record import DatasetError

Arm = Literal["without", "with"]
ARMS: tuple[Arm, Arm] = ("without", "with")
STUDY, CASES, READINGS = "study.json", "cases.csv", "readings.csv"
Rating = Annotated[int, Field(ge=1, le=5)]

_CASE_COLUMNS = ("case", "truth", "model_label", "model_score", "training")
_READING_COLUMNS = ("reader", "case", "arm", "period", "position", "diagnosis", "confidence", "seconds", "training")


class StudyError(DatasetError):
    """The files are not those of a reader study; the message names file, line and column, never a value."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StudiedModel(_Record):
    """The bundle whose predictions were shown."""

    id: str
    version: str
    digest: str


class Study(_Record):
    """`study.json`. `positive` are the classes that count as disease; `items` the Likert items, 1 to 5."""

    name: str
    seed: int
    design: Literal["crossover", "parallel"]
    washout_days: float = Field(ge=0)
    classes: tuple[str, ...] = Field(min_length=2)
    positive: tuple[str, ...]
    items: tuple[str, ...]
    model: StudiedModel
    method: str
    created: str


class Case(_Record):
    """A line of `cases.csv`; `model_score` is the model's probability of any positive class."""

    case: str = Field(min_length=1)
    truth: str
    model_label: str
    model_score: float = Field(ge=0, le=1)
    training: bool


class Reading(_Record):
    """A line of `readings.csv`; `ratings` are those of the study's items, in their order, None where empty."""

    reader: str = Field(min_length=1)
    case: str = Field(min_length=1)
    arm: Arm
    period: int = Field(ge=1, le=2)
    position: int = Field(ge=1)
    diagnosis: str
    confidence: float = Field(ge=0, le=100)
    seconds: float = Field(gt=0, allow_inf_nan=False)
    training: bool
    ratings: tuple[Rating | None, ...]


R = TypeVar("R", bound=_Record)


def load(folder: Path) -> tuple[Study, list[Case], list[Reading]]:
    """Read and check an exported study; training cases are left out.

    Raises:
        FileNotFoundError: one of the three files is missing.
        StudyError: a file is broken, or names a class or a case that is not known.
        ValidationError: `study.json` lacks something (pydantic's).
    """
    study = Study.model_validate_json((folder / STUDY).read_bytes())
    if unknown := set(study.positive) - set(study.classes):
        raise StudyError(f"{STUDY}, positive: {len(unknown)} not among the classes")
    cases: dict[str, Case] = {}
    for line, row in _rows(folder / CASES, _CASE_COLUMNS):
        case = _parse(Case, row, CASES, line, ())
        _known(case.truth, study.classes, CASES, line, "truth")
        _known(case.model_label, study.classes, CASES, line, "model_label")
        if case.case in cases:
            raise _fault(CASES, line, "case", "the case is there twice")
        cases[case.case] = case
    readings = _readings(folder / READINGS, study, cases)
    scored = [case for case in cases.values() if not case.training]
    return study, scored, [reading for reading in readings if not cases[reading.case].training]


def _readings(path: Path, study: Study, cases: Mapping[str, Case]) -> list[Reading]:
    found: dict[tuple[str, str, Arm], Reading] = {}
    for line, row in _rows(path, (*_READING_COLUMNS, *study.items)):
        ratings = tuple(row[item] or None for item in study.items)
        reading = _parse(Reading, {**row, "ratings": ratings}, READINGS, line, study.items)
        _known(reading.case, cases, READINGS, line, "case")
        _known(reading.diagnosis, study.classes, READINGS, line, "diagnosis")
        if reading.training != cases[reading.case].training:
            raise _fault(READINGS, line, "training", f"differs from {CASES}")
        if reading.arm == "without" and any(rating is not None for rating in reading.ratings):
            raise _fault(READINGS, line, study.items[0], "rated, though no explanation was shown")
        key = (reading.reader, reading.case, reading.arm)
        if key in found:
            raise _fault(READINGS, line, "reader", "reader, case and arm are there twice")
        found[key] = reading
    return list(found.values())


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines with their numbers, as dictionaries; whole, and with all columns that are needed."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise StudyError(f"{path.name} line 1: no column {', '.join(missing)}")
            for row in reader:
                if None in row or None in row.values():
                    raise StudyError(f"{path.name} line {reader.line_num}: not as many fields as the first line")
                yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise StudyError(f"{path.name}: not UTF-8") from error
        except csv.Error as error:
            raise StudyError(f"{path.name} line {reader.line_num}: {error}") from error


def _parse(record: type[R], row: Mapping[str, object], file: str, line: int, items: tuple[str, ...]) -> R:
    try:
        return record.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        place = first["loc"]
        column = items[int(place[1])] if place[0] == "ratings" else str(place[0])
        raise _fault(file, line, column, first["msg"]) from error


def _known(name: str, names: Container[str], file: str, line: int, column: str) -> None:
    if name not in names:
        raise _fault(file, line, column, "not known to the study")


def _fault(file: str, line: int, column: str, message: str) -> StudyError:
    return StudyError(f"{file} line {line}, column {column}: {message}")
