from __future__ import annotations

import csv
import json
from datetime import UTC, datetime

import pytest

from service.errors import StudyConflict
from service.reader_study.export import FILES, export
from service.reader_study.opinion import ITEMS, Opinion
from service.reader_study.readings import ReadingStore
from service.reader_study.rows import open_database
from service.reader_study.store import StudyStore


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'studies.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine, make):
    """A study of which anna has read the first period."""
    code = make(engine)["anna"]
    readings = ReadingStore(engine)
    reader = readings.reader(code)
    for number in range(6):
        current = readings.begin(reader).current
        ratings = {item: 1 + (number + place) % 5 for place, item in enumerate(ITEMS)}
        said = Opinion(
            diagnosis="dark",
            confidence=10 * number,
            ratings=ratings if current.arm == "with" else {},
            comment='a "quoted", comma\nand a line' if number == 3 else "",
            active_seconds=0.001,
        )
        readings.answer(reader, current, said)
    return StudyStore(engine)


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_three_files_as_agreed_with_the_analysis(store, tmp_path):
    out = tmp_path / "out"
    assert export(store, store.study("trial"), out) == 6
    assert {path.name for path in out.iterdir()} == FILES
    study = json.loads((out / "study.json").read_text())
    assert list(study) == [
        *("name", "seed", "design", "washout_days", "classes", "positive", "items", "model", "method", "created"),
    ]
    assert (study["name"], study["seed"], study["design"], study["washout_days"]) == ("trial", 1, "crossover", 28)
    assert study["classes"] == ["bright", "dark", "middle"]
    assert study["positive"] == ["bright", "middle"]
    assert study["items"] == list(ITEMS)
    assert study["model"]["id"] == "bright"
    assert len(study["model"]["digest"]) == 64
    assert datetime.fromisoformat(study["created"]).tzinfo == UTC


def test_cases_hold_the_truth_and_what_the_model_said(store, tmp_path):
    export(store, store.study("trial"), tmp_path / "out")
    cases = rows(tmp_path / "out" / "cases.csv")
    assert list(cases[0]) == [
        *("case", "truth", "model_label", "model_probability", "model_score", "training", "file_sha256"),
    ]
    assert sorted(case["training"] for case in cases) == ["0", "0", "0", "0", "1", "1"]
    for case, frozen in zip(cases, store.cases(store.study("trial")), strict=True):
        probabilities = frozen.answer.probabilities
        assert float(case["model_probability"]) == pytest.approx(max(probabilities.values()), abs=1e-6)
        assert float(case["model_score"]) == pytest.approx(1 - probabilities["dark"], abs=1e-6)
        assert case["model_label"] == frozen.answer.label


def test_readings_hold_what_was_said(store, tmp_path):
    export(store, store.study("trial"), tmp_path / "out")
    readings = rows(tmp_path / "out" / "readings.csv")
    assert list(readings[0]) == [
        *("reader", "case", "arm", "period", "position", "diagnosis", "confidence", "seconds"),
        *("clear", "plausible", "relevant", "useful", "trust", "comment", "started_at", "answered_at", "training"),
    ]
    assert [row["position"] for row in readings] == ["1", "2", "3", "4", "5", "6"]
    assert [row["confidence"] for row in readings] == ["0", "10", "20", "30", "40", "50"]
    assert [row["training"] for row in readings] == ["1", "1", "0", "0", "0", "0"]
    assert readings[3]["comment"] == 'a "quoted", comma\nand a line'
    for row in readings:
        assert (row["trust"] == "") is (row["arm"] == "without")
        assert 0 <= float(row["seconds"]) < 60
        assert datetime.fromisoformat(row["started_at"]) <= datetime.fromisoformat(row["answered_at"])
        assert row["started_at"].endswith("+00:00")


def test_no_file_name_and_no_code_leaves(store, tmp_path):
    export(store, store.study("trial"), tmp_path / "out")
    assert not any("john" in path.read_text() for path in (tmp_path / "out").iterdir())


def test_an_export_takes_the_place_of_the_one_before_and_of_nothing_else(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(store, store.study("trial"), out)
    (out / "readings.csv").write_text("old")
    export(store, store.study("trial"), out)
    assert len(rows(out / "readings.csv")) == 6
    (out / "thesis.docx").write_text("precious")
    (out / "readings.csv").write_text("old")
    with pytest.raises(StudyConflict):
        export(store, store.study("trial"), out)
    assert (out / "readings.csv").read_text() == "old"
    assert [path.name for path in tmp_path.glob(".out*")] == []
