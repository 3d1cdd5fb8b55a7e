"""Whole series, without Ray: rows for the slices, DICOM objects for the series."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread

from service.backfill.explaining import Explaining
from service.backfill.ledger import Ledger
from service.backfill.reading import Reading
from service.backfill.series import Objects, SeriesExplainer
from service.backfill.sources import of_series, open_source
from service.bundle import read_bundle
from service.explainers.base import DEFAULTS
from service.studies.answering import StudyWish
from tests.dicom_writers import classic_mr, saved

SLICES = 3


@pytest.fixture
def run(tmp_path, write_bundle):
    """Two series, each in its folder, and a folder without any image; all in one shard."""
    chance = np.random.default_rng(5)
    sent = {}
    for name in ("first", "second"):
        (tmp_path / "archive" / name).mkdir(parents=True)
        sent[name] = classic_mr(list(chance.integers(0, 255, (SLICES, 40, 40), np.uint8)), name)
        for number, ds in enumerate(sent[name]):
            (tmp_path / "archive" / name / f"{number}.dcm").write_bytes(saved(ds))
    (tmp_path / "archive" / "third").mkdir()
    (tmp_path / "archive" / "third" / "notes.txt").write_bytes(b"nothing")
    bundle = read_bundle(write_bundle("bright"))
    source = of_series(open_source(str(tmp_path / "archive"), {}))
    ledger = Ledger(tmp_path / "out", {})
    ledger.list_entries(sorted(source.entries(), key=lambda entry: entry.key), 100, lambda count: None)
    ledger.close()
    manifest = bundle.manifest
    reading = Reading(source, ledger.folder, np.array([0]), manifest.preprocessing, manifest.kind, 4, None)
    wish = StudyWish(model="bright", method="gradcam", kinds=("parametric_map", "report"))

    def answered(secret: bytes | None = None) -> list[dict]:
        explaining = Explaining(bundle.path, "gradcam", "predicted", DEFAULTS, device="cpu")
        engine = SeriesExplainer(explaining, reading, Objects(wish, tmp_path / "out" / "dicom", secret))
        return [row for table in engine({"id": np.array([0])}) for row in table.to_pylist()]

    return answered, sent, tmp_path / "out" / "dicom"


def test_a_series_is_a_row_for_each_slice_and_its_objects(run):
    answered, sent, folder = run
    rows = answered()
    assert [(row["entry"], row["number"], row["rows_of_entry"]) for row in rows] == [
        *((entry, number, SLICES if number == SLICES - 1 else 0) for entry in (0, 1) for number in range(SLICES)),
        (2, 0, 1),
    ]
    for entry, name in enumerate(sent):
        own = [row for row in rows if row["entry"] == entry]
        assert {row["sop_instance_uid"] for row in own} == {ds.SOPInstanceUID for ds in sent[name]}
        assert len({row["target"] for row in own}) == 1  # one map for a series, about one class
        assert all(row["saliency"] and row["problem"] is None for row in own)
    assert (rows[-1]["problem"], rows[-1]["detail"]) == ("left-out", "not a DICOM file")
    objects = [dcmread(path) for path in folder.rglob("*.dcm")]
    assert sorted(ds.Modality for ds in objects) == ["OT", "OT", "SR", "SR"]
    assert {ds.StudyInstanceUID for ds in objects} == {sent[name][0].StudyInstanceUID for name in sent}


def test_a_shard_that_is_done_again_writes_the_same_files(run):
    answered, _, folder = run
    answered()
    before = {path for path in folder.rglob("*") if path.is_file()}
    answered()
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    assert len(before) == 4


def test_objects_may_leave_without_the_patient(run):
    answered, sent, folder = run
    answered(b"secret")
    names = {str(ds.PatientName) for ds in sent["first"]}
    for path in folder.rglob("*.dcm"):
        assert str(dcmread(path).PatientName) not in names
