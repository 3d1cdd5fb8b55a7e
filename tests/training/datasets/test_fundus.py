"""DRIVE, STARE and the picture files that they are made of."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import read_dataset
from training.datasets.pictures import colour_spread, read_green
from training.datasets.record import DatasetError
from training.datasets.stare import read_codes

PHOTOGRAPH = np.stack([np.full((6, 8), 200), np.arange(48).reshape(6, 8), np.full((6, 8), 10)], axis=2).astype(np.uint8)
VESSELS = np.zeros((6, 8), np.uint8)
VESSELS[2, :] = 255
FIELD = np.full((6, 8), 255, np.uint8)
FIELD[0] = 0


def write_drive(root: Path) -> None:
    for half, suffix, number in (("training", "training", "21"), ("test", "test", "01")):
        for folder in ("images", "1st_manual", "mask"):
            (root / half / folder).mkdir(parents=True)
        Image.fromarray(PHOTOGRAPH).save(root / half / "images" / f"{number}_{suffix}.tif")
        Image.fromarray(FIELD).save(root / half / "mask" / f"{number}_{suffix}_mask.gif")
    Image.fromarray(VESSELS).save(root / "training" / "1st_manual" / "21_manual1.gif")


def write_ppm(path: Path, pixels: np.ndarray) -> None:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PPM")
    content = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_stare(root: Path, lines: str) -> None:
    for number in (1, 2, 3, 4, 9):
        write_ppm(root / f"im{number:04d}.ppm{'.gz' if number % 2 else ''}", PHOTOGRAPH)
    write_ppm(root / "labels-ah" / "im0001.ah.ppm.gz", VESSELS)
    write_ppm(root / "labels-vk" / "im0002.vk.ppm", VESSELS)
    (root / "all-mg-codes.txt").write_text(lines)


LINES = (
    "im0001\t13 14\tChoroidal Neovascularization AND Histoplasmosis\n"
    "im0002\t7\tBackground Diabetic Retinopathy\n"
    "im0003\t8 10\tProliferative Diabetic Retinopathy AND Hypertensive Retinopathy\n"
    "im0004\t14\tOptic nerve drusen?\n"
    "im0009\t0\tNormal\n"
    "im0400\t0\tNormal\n"
)


def test_drive_reads_both_halves(tmp_path: Path) -> None:
    write_drive(tmp_path)
    records = read_dataset("drive", tmp_path)
    assert [(r.id, r.label, r.group) for r in records] == [
        ("test/images/01_test.tif", "DRIVE", "test/01"),
        ("training/images/21_training.tif", "DRIVE", "training/21"),
    ]
    test, training = records
    np.testing.assert_array_equal(training.load_image(), PHOTOGRAPH[..., 1])
    assert training.load_mask is not None
    np.testing.assert_array_equal(training.load_mask() > 0, VESSELS > 0)
    assert test.load_mask is None


def test_drive_options(tmp_path: Path) -> None:
    write_drive(tmp_path)
    records = read_dataset("drive", tmp_path, label="fundus", mask="field_of_view")
    assert {record.label for record in records} == {"fundus"}
    for record in records:
        assert record.load_mask is not None
        np.testing.assert_array_equal(record.load_mask() > 0, FIELD > 0)
    with pytest.raises(DatasetError, match="no mask 'optic_disc'"):
        read_dataset("drive", tmp_path, mask="optic_disc")
    with pytest.raises(DatasetError, match="no photographs"):
        read_dataset("drive", tmp_path / "training")


def test_stare_labels_by_diagnosis(tmp_path: Path) -> None:
    write_stare(tmp_path, LINES)
    records = read_dataset("stare", tmp_path)
    # im0003 has two diagnoses; 14, any other disease, gives way to a named one.
    assert {r.id: r.label for r in records} == {"im0001": "CNV", "im0002": "BDR", "im0004": "other", "im0009": "normal"}
    first, second = records[0], records[1]
    np.testing.assert_array_equal(first.load_image(), PHOTOGRAPH[..., 1])
    assert first.load_mask is not None
    np.testing.assert_array_equal(first.load_mask(), VESSELS)
    assert second.load_mask is None
    assert [record.group for record in records] == ["block-0000", "block-0000", "block-0000", "block-0001"]


def test_stare_mapping_joins_diagnoses(tmp_path: Path) -> None:
    write_stare(tmp_path, LINES)
    mapping = {"0": "normal", "7": "diseased", "8": "diseased", "10": "diseased"}
    records = read_dataset("stare", tmp_path, labels=mapping, observer="vk", block=1)
    assert {r.id: r.label for r in records} == {"im0002": "diseased", "im0003": "diseased", "im0009": "normal"}
    assert [record.id for record in records if record.load_mask] == ["im0002"]
    assert len({record.group for record in records}) == 3
    with pytest.raises(DatasetError, match="none of the 5 photographs"):
        read_dataset("stare", tmp_path, labels={"6": "hemi-CRVO"})


def test_stare_without_diagnoses(tmp_path: Path) -> None:
    write_stare(tmp_path, LINES)
    (tmp_path / "all-mg-codes.txt").unlink()
    assert {record.label for record in read_dataset("stare", tmp_path)} == {"STARE"}


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("im0001\t13 14\tChoroidal Neovascularization", ("13", "14")),
        ("im0001 \t 7 \t\tBackground Diabetic Retinopathy", ("7",)),
        ("im0001 0 Normal", ("0",)),
        ("im0001\t07,9", ("7", "9")),
    ],
)
def test_diagnosis_lines(tmp_path: Path, line: str, codes: tuple[str, ...]) -> None:
    path = tmp_path / "all-mg-codes.txt"
    path.write_text(f"\n{line}\n")
    assert read_codes(path) == {"im0001": codes}


@pytest.mark.parametrize(
    ("line", "message"),
    [("im0001\tnormal", "line 2: not an image name"), ("im0001\t15\tx", "unknown diagnosis code 15")],
)
def test_wrong_diagnosis_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "all-mg-codes.txt"
    path.write_text(f"im0000\t0\tNormal\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        read_codes(path)


def test_colour_is_seen_in_the_pixels(tmp_path: Path) -> None:
    write_ppm(tmp_path / "colour.ppm.gz", PHOTOGRAPH)
    write_ppm(tmp_path / "grey.ppm", np.repeat(VESSELS[..., None], 3, axis=2))
    assert colour_spread(tmp_path / "colour.ppm.gz") > 0.3
    assert colour_spread(tmp_path / "grey.ppm") == 0


@pytest.mark.parametrize("name", ["broken.ppm", "broken.ppm.gz"])
def test_a_broken_picture_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=name):
        read_green(tmp_path / name)
