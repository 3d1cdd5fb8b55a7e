from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from networks import CLASSES
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from export.calibrate import main as calibrate
from export.calibrate import read_cases
from export.conformal import lowest_limit
from service.bundle import CARD, GRAPH, MANIFEST, read_bundle, sha256
from service.engine import open_engine
from service.images.reading import read_frames
from service.prediction import predict
from service.preprocessing import prepare
from training.datasets.record import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / exported.name)


@pytest.fixture
def scans(finished_run) -> Path:
    """Class folders of 24 patients each; the run was trained on some, which does not matter to what is tested here."""
    return finished_run.parent / "data"


def table(path: Path, rows: list[tuple[str, ...]], head: tuple[str, ...] = ("file", "label", "patient")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def scored(bundle: Path, paths: list[Path]) -> list[dict[str, float]]:
    read = read_bundle(bundle)
    engine = open_engine(read, device="cpu")
    found = []
    for path in paths:
        pixels = prepare(read_frames(path.read_bytes(), "")[0], read.manifest.preprocessing).pixels
        logits = engine.logits(pixels[None])[0]
        found.append(predict(logits, read.manifest).probabilities)
    return found


def test_class_folders_give_limits_of_labels_and_findings(bundle, scans, capsys):
    before = read_bundle(bundle).manifest
    assert calibrate([str(bundle), str(scans), "--error-rate", "0.2", "--bootstrap", "20"]) == 0
    told = capsys.readouterr().err
    assert "96 of 96 files name no patient" in told and "CNV, from" in told
    after = read_bundle(bundle).manifest
    found = after.conformal
    assert found is not None and (found.error_rate, found.images, found.groups) == (0.2, 96, 96)
    assert (after.temperature, after.files[GRAPH]) == (before.temperature, before.files[GRAPH])
    cards = (bundle / CARD).read_text()
    assert "at most 20% of the images of each class" in cards and "export.calibrate" in found.command
    for label in CLASSES:
        paths = sorted((scans / label).iterdir())
        scores = np.array([row[label] for row in scored(bundle, paths)])
        expected = lowest_limit(scores, np.arange(len(paths)), 0.2)
        assert found.labels[label] == pytest.approx(expected, abs=1e-5)
        assert found.metrics[f"error/{label}"].value <= 0.5
    assert not (bundle / "manifest.sig").exists() and sha256(bundle / CARD) == after.files[CARD]


def test_cases_that_say_only_the_finding_change_only_its_limits(bundle, scans, tmp_path):
    assert calibrate([str(bundle), str(scans), "--bootstrap", "20"]) == 0
    first = read_bundle(bundle).manifest
    assert first.conformal is not None
    (finding,) = first.findings
    rows = [
        (str(path), finding.name if label in finding.labels else "none", f"p{number // 2}")
        for label in CLASSES
        for number, path in enumerate(sorted((scans / label).iterdir()))
        if label != "DME"
    ]
    cases = table(tmp_path / "cases.csv", rows)
    assert calibrate([str(bundle), str(cases), "--bootstrap", "20"]) == 0
    second = read_bundle(bundle).manifest.conformal
    assert second is not None
    assert second.labels == first.conformal.labels
    assert (second.images, second.groups) == (72, 12)
    assert second.metrics["error/CNV"] == first.conformal.metrics["error/CNV"]
    present = [row for row in rows if row[1] == finding.name]
    scores = [sum(row[name] for name in finding.labels) for row in scored(bundle, [Path(row[0]) for row in present])]
    expected = lowest_limit(np.array(scores), np.array([row[2] for row in present]), 0.1)
    assert second.findings[finding.name].present_from == pytest.approx(expected, abs=1e-5)
    assert second.findings[finding.name] != first.conformal.findings[finding.name]
    manifest = (bundle / MANIFEST).read_bytes()
    assert calibrate([str(bundle), str(cases), "--error-rate", "0.2"]) == 2
    assert (bundle / MANIFEST).read_bytes() == manifest


def test_too_few_cases_for_the_error_rate_are_refused(bundle, scans, capsys):
    before = (bundle / MANIFEST).read_bytes()
    assert calibrate([str(bundle), str(scans), "--error-rate", "0.01"]) == 1
    assert "nothing written: CNV: 24 patients or blocks" in (told := capsys.readouterr().err)
    assert "needs 99 at least" in told
    assert (bundle / MANIFEST).read_bytes() == before


def dicom(path: Path, pixels: np.ndarray, patient: str, frames: int = 1) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = SecondaryCaptureImageStorage, generate_uid(), "OPT"
    ds.PatientID, (ds.Rows, ds.Columns), ds.SamplesPerPixel = patient, pixels.shape, 1
    ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit = "MONOCHROME2", 8, 8, 7
    ds.PixelRepresentation, ds.PixelData = 0, pixels.tobytes() * frames
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.save_as(path, enforce_file_format=True)
    return path


def test_dicom_files_say_their_patient(bundle, scans, tmp_path, capsys):
    rows = []
    for label in CLASSES:
        for number, path in enumerate(sorted((scans / label).iterdir())):
            with Image.open(path) as image:
                stored = dicom(tmp_path / f"{path.stem}.dcm", np.asarray(image), f"{label}{number // 2}")
            rows.append((stored.name, label))
    cases = table(tmp_path / "cases.csv", rows, ("file", "label"))
    assert calibrate([str(bundle), str(cases), "--bootstrap", "20"]) == 0
    found = read_bundle(bundle).manifest.conformal
    assert found is not None and (found.images, found.groups) == (96, 48)
    assert "name no patient" not in capsys.readouterr().err


def test_cases_that_are_wrong_are_told_in_a_line(bundle, scans, tmp_path, capsys):
    first = sorted((scans / "CNV").iterdir())[0]
    with Image.open(first) as image:
        several = dicom(tmp_path / "several.dcm", np.asarray(image), "p", frames=2)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for rows, head, reason in (
        ([(str(first), "tumour")], ("file", "label"), "labels ['tumour'] are unknown"),
        ([(str(first), "")], ("file", "label"), "line 2: file or label is empty"),
        ([(str(first), "CNV")], ("path", "label"), "no column file"),
        ([(str(several), "CNV")], ("file", "label"), "holds 2 images"),
        ([("broken.png", "CNV")], ("file", "label"), "broken.png: "),
        ([("none.png", "CNV")], ("file", "label"), "none.png: No such file"),
        ([], ("file", "label"), "no cases"),
    ):
        assert calibrate([str(bundle), str(table(tmp_path / "cases.csv", rows, head))]) == 2
        assert reason in capsys.readouterr().err.splitlines()[-1]
    assert read_bundle(bundle).manifest.conformal is None
    with pytest.raises(SystemExit):
        calibrate([str(bundle), str(scans), "--error-rate", "0"])
    with pytest.raises(DatasetError, match="no cases"):
        read_cases(bundle)
