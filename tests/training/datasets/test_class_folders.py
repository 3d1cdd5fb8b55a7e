"""Class folders, and the layouts built on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import ADAPTERS, load_adapter, read_dataset
from training.datasets.guess import guess_adapter
from training.datasets.record import DatasetError


def write_grey(path: Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 9), value, np.uint8)).save(path)


def test_kermany_groups_by_patient(tmp_path: Path) -> None:
    for name in ("CNV/CNV-1016042-1.jpeg", "CNV/CNV-1016042-2.jpeg", "NORMAL/NORMAL-9-1.jpeg"):
        write_grey(tmp_path / "test" / name)
    records = read_dataset("kermany", tmp_path)
    assert [(r.label, r.group, r.sequence) for r in records] == [
        ("CNV", "1016042", None),
        ("CNV", "1016042", None),
        ("NORMAL", "9", None),
    ]
    assert records[0].load_image().shape == (6, 9)


def test_brain_folders_have_masks_and_blocks(tmp_path: Path) -> None:
    for name in ("glioma/39.jpg", "glioma/40.jpg", "no_tumor/1.jpg", "no_tumor/2.jpg"):
        write_grey(tmp_path / "images" / name)
    write_grey(tmp_path / "masks" / "glioma" / "39.png", 255)
    records = read_dataset("brain_folders", tmp_path)
    assert [(r.id, r.group, r.sequence, r.load_mask is not None) for r in records] == [
        ("glioma/39.jpg", "glioma/block-0000", 39, True),
        ("glioma/40.jpg", "glioma/block-0001", 40, False),
        ("no_tumor/1.jpg", "no_tumor/1.jpg", None, False),
        ("no_tumor/2.jpg", "no_tumor/2.jpg", None, False),
    ]


def test_sixteen_bit_images_keep_their_range(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "a" / "1.png")
    (record,) = read_dataset("class_folders", tmp_path)
    image = record.load_image()
    assert image.dtype == np.float32
    assert image.max() == 3000


def test_four_class_keeps_series_of_numbers_apart(tmp_path: Path) -> None:
    for name in (
        "Training/glioma/Tr-gl_0010.jpg",
        "Training/glioma/Tr-gl_0011.jpg",
        "Training/glioma/Tr-glTr_0010.jpg",
        "Training/notumor/Tr-no_0010.jpg",
        "Testing/glioma/Te-gl_0010.jpg",
        "Testing/notumor/Te-no_0010.jpg",
    ):
        write_grey(tmp_path / name)
    records = {record.id: record for record in read_dataset("four_class", tmp_path)}
    gliomas = [record for record in records.values() if record.label == "glioma"]
    assert len({record.group for record in gliomas}) == 3
    near, next_to = records["Training/glioma/Tr-gl_0010.jpg"], records["Training/glioma/Tr-gl_0011.jpg"]
    assert near.group == next_to.group == "Training/glioma/Tr-gl_block-0000"
    numbers = sorted(record.sequence for record in gliomas if record.sequence is not None)
    gaps = np.diff(numbers)
    assert len(numbers) == 4
    assert sorted(gaps)[0] == 1
    assert sorted(gaps)[1] > 100_000
    healthy = [record for record in records.values() if record.id.split("/")[1] == "notumor"]
    assert {record.label for record in healthy} == {"no_tumor"}
    assert len({record.group for record in healthy}) == 2


@pytest.mark.parametrize(
    ("adapter", "files"),
    [
        ("kermany", ["CNV/CNV-1-1.jpeg", "DME/DME-2-1.jpeg"]),
        ("brain_folders", ["images/glioma/1.jpg", "masks/glioma/1.png"]),
        ("four_class", ["Training/glioma/Tr-gl_0010.jpg", "Training/notumor/Tr-no_0010.jpg"]),
        ("class_folders", ["cat/1.png", "dog/2.png"]),
        ("figshare", ["part/1.mat", "cvind.mat"]),
        ("brats", ["BraTS2021_00000/BraTS2021_00000_seg.nii.gz"]),
        ("drive", ["training/images/21_training.tif", "training/mask/21_training_mask.gif"]),
        ("stare", ["im0001.ppm.gz", "labels-ah/im0001.ah.ppm.gz"]),
    ],
)
def test_layouts_are_recognised_by_name(tmp_path: Path, adapter: str, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert guess_adapter(tmp_path) == adapter


def test_unknown_layouts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError, match="--adapter"):
        guess_adapter(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        guess_adapter(tmp_path / "notes.txt")


def test_every_adapter_loads() -> None:
    assert all(callable(load_adapter(name)) for name in ADAPTERS)


def test_wrong_names_options_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no adapter 'imagenet'; there are brain_folders"):
        read_dataset("imagenet", tmp_path)
    with pytest.raises(DatasetError, match="'drive': got an unexpected keyword argument 'colour'"):
        read_dataset("drive", tmp_path, colour=True)
    with pytest.raises(DatasetError, match="is not a folder"):
        read_dataset("drive", tmp_path / "absent")
    with pytest.raises(DatasetError, match="no image files"):
        read_dataset("class_folders", tmp_path)
    write_grey(tmp_path / "CNV" / "scan.jpeg")
    with pytest.raises(DatasetError, match="does not match the pattern"):
        read_dataset("kermany", tmp_path)
