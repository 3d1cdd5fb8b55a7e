from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.study.readings import arrange, read_study
from training.study.records import CASES, READINGS, STUDY, StudyError, load
from training.study.simulate import Parameters, save_study, simulate

SMALL = Parameters(readers=3, cases=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_study(folder, *simulate(SMALL, 1), SMALL)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "study"))


def edit(path: Path, line: int, change: Callable[[list[str]], list[str]]) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = ",".join(change(lines[line - 1].split(",")))
    path.write_text("\n".join(lines) + "\n")


def put(column: int, value: str) -> Callable[[list[str]], list[str]]:
    return lambda fields: [*fields[:column], value, *fields[column + 1 :]]


def test_what_is_saved_is_what_is_read(exported: Path) -> None:
    study, cases, readings = simulate(SMALL, 1)
    found_study, found_cases, found = load(exported)
    assert (found_study, found_cases) == (study, cases)
    assert sorted(found, key=str) == sorted(readings, key=str)


@pytest.mark.parametrize(
    ("file", "line", "change", "message"),
    [
        (
            READINGS,
            3,
            put(6, "101"),
            "readings.csv line 3, column confidence: Input should be less than or equal to 100",
        ),
        (READINGS, 4, put(6, "sure"), "readings.csv line 4, column confidence: Input should be a valid number"),
        (READINGS, 4, put(7, "0"), "line 4, column seconds"),
        (READINGS, 4, put(7, "nan"), "line 4, column seconds"),
        (READINGS, 2, put(2, "both"), "line 2, column arm"),
        (READINGS, 2, put(5, "flu"), "line 2, column diagnosis: not known"),
        (READINGS, 2, put(1, "c999"), "line 2, column case: not known"),
        (READINGS, 2, put(8, "4"), "line 2, column clear: rated, though no explanation"),
        (READINGS, 49, put(9, "6"), "line 49, column plausible: Input should be less"),
        (READINGS, 49, put(16, "1"), "line 49, column training: differs"),
        (READINGS, 2, lambda fields: fields[:-1], "line 2: not as many fields"),
        (READINGS, 2, lambda fields: [*fields, "more"], "line 2: not as many fields"),
        (READINGS, 1, put(7, "time"), "readings.csv line 1: no column seconds"),
        (CASES, 5, put(1, "flu"), "cases.csv line 5, column truth: not known"),
        (CASES, 5, put(4, "1.5"), "cases.csv line 5, column model_score"),
        (CASES, 3, put(0, "c001"), "cases.csv line 3, column case: the case is there twice"),
    ],
)
def test_a_broken_file_is_refused_with_line_and_column(folder: Path, file, line, change, message) -> None:
    edit(folder / file, line, change)
    with pytest.raises(StudyError) as caught:
        load(folder)
    assert message in str(caught.value)


def test_a_reading_twice_is_refused(folder: Path) -> None:
    lines = (folder / READINGS).read_text().splitlines()
    (folder / READINGS).write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(StudyError, match="reader, case and arm are there twice"):
        load(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / READINGS).write_bytes(b"reader,case\n\xff\xfe")
    with pytest.raises(StudyError, match=r"readings\.csv: not UTF-8"):
        load(folder)


def test_a_study_without_its_fields_is_refused(folder: Path) -> None:
    written = json.loads((folder / STUDY).read_text())
    del written["classes"]
    (folder / STUDY).write_text(json.dumps(written))
    with pytest.raises(ValidationError, match="classes"):
        load(folder)
    (folder / STUDY).write_text(json.dumps({**written, "classes": ["a", "b"], "positive": ["c"]}))
    with pytest.raises(StudyError, match="positive: 1 not among"):
        load(folder)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_are_read_or_refused(exported: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([STUDY, CASES, READINGS]))
    for file in (STUDY, CASES, READINGS):
        shutil.copy(exported / file, tmp_path / file)
    content = bytearray((tmp_path / name).read_bytes())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=30))
    (tmp_path / name).write_bytes(content)
    try:
        study, cases, readings = load(tmp_path)
        assert {reading.diagnosis for reading in readings} <= set(study.classes)
        arrange(study, cases, readings)
    except (StudyError, ValidationError) as error:
        assert str(error)  # refused by name: anything else fails the test


def test_training_cases_are_left_out(folder: Path) -> None:
    for line in (2, 5):
        edit(folder / CASES, line, put(5, "1"))
    names = {"c001", "c004"}
    lines = [line.split(",") for line in (folder / READINGS).read_text().splitlines()]
    lines = [[*fields[:-1], "1"] if fields[1] in names else fields for fields in lines]
    (folder / READINGS).write_text("\n".join(map(",".join, lines)) + "\n")
    readings = read_study(folder)
    assert len(readings.cases) == 6
    assert not names & set(readings.cases)
    assert readings.left_out == 0


def test_cases_that_one_reader_lacks_are_left_out_and_a_reader_can_be(folder: Path) -> None:
    lines = (folder / READINGS).read_text().splitlines()
    kept = [line for line in lines if not (line.startswith("r2,") and line.split(",")[1] in ("c001", "c002"))]
    (folder / READINGS).write_text("\n".join(kept) + "\n")
    readings = read_study(folder)
    assert (len(readings.cases), readings.left_out) == (6, 2)
    assert np.isfinite(readings.diagnosis).all()
    whole = read_study(folder, without=["r2"])
    assert (len(whole.cases), whole.left_out, whole.readers) == (8, 0, ("r1", "r3"))
    with pytest.raises(StudyError, match="1 readers in an arm"):
        read_study(folder, without=["r2", "r3"])
    with pytest.raises(StudyError, match="not in the study"):
        read_study(folder, without=["r9"])


def test_a_parallel_study_has_every_reader_in_one_arm() -> None:
    parameters = Parameters(readers=5, cases=10, design="parallel")
    study, cases, readings = simulate(parameters, 0)
    found = arrange(study, cases, readings)
    without, with_ = found.readers_of
    assert sorted([*without, *with_]) == [0, 1, 2, 3, 4]
    crossed = [*readings, readings[0].model_copy(update={"arm": "with" if readings[0].arm == "without" else "without"})]
    with pytest.raises(StudyError, match="in both arms"):
        arrange(study, cases, crossed)
