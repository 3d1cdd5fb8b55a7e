from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from training.datasets import read_dataset
from training.datasets.record import DatasetError

SHAPE = (20, 24, 10)  # to the right, to the front, to the top
OPTIONS = {"step": 1, "tumour_area": 6.0, "brain_area": 20.0}


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """Brain and segmentation, axes right, front, top; brain in slices 2..8."""
    brain = np.zeros(SHAPE, np.int16)
    brain[4:16, 4:20, 2:9] = 100
    brain[12:16, 4:20, 2:9] = 150  # brighter on the patient's right
    brain[4:16, 16:20, 2:9] += 300  # and brighter still in front
    segments = np.zeros(SHAPE, np.uint8)
    segments[5:9, 6:9, 4] = 2
    segments[6, 7, 4] = 4
    segments[5, 6, 5] = 1  # too little tumour
    return brain, segments


def write_subject(root: Path, name: str, codes: str = "LPS", zooms: float = 1.0) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    brain, segments = volumes()
    # From right-front-top to the stored axes; BraTS stores left-back-top.
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    affine = np.diag([zooms, zooms, zooms, 1.0]) @ inv_ornt_aff(turn, SHAPE)
    for kind, array in {"flair": brain + (brain > 0), "t1": brain, "t1ce": brain, "t2": brain, "seg": segments}.items():
        stored = nib.orientations.apply_orientation(array, turn)
        nib.save(nib.Nifti1Image(stored, affine), folder / f"{name}_{kind}.nii.gz")


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAR", "PIL"])
def test_slices_are_seen_from_the_feet_with_the_front_up(tmp_path: Path, codes: str) -> None:
    write_subject(tmp_path, "BraTS2021_00000", codes)
    records = {record.id: record for record in read_dataset("brats", tmp_path, **OPTIONS)}
    record = records["BraTS2021_00000/t1ce/004"]
    brain, segments = volumes()
    expected = brain[::-1, ::-1, 4].T  # rows from front to back, columns from the patient's right to left
    image = record.load_image()
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, expected)
    assert record.load_mask is not None
    np.testing.assert_array_equal(record.load_mask(), segments[::-1, ::-1, 4].T > 0)
    front, back = image[: SHAPE[1] // 2], image[SHAPE[1] // 2 :]
    right, left = image[:, : SHAPE[0] // 2], image[:, SHAPE[0] // 2 :]
    assert front.mean() > back.mean()
    assert right.mean() > left.mean()


def test_labels_follow_the_segmentation(tmp_path: Path) -> None:
    write_subject(tmp_path, "BraTS2021_00000")
    records = read_dataset("brats", tmp_path, **OPTIONS)
    labels = {int(record.id[-3:]): record.label for record in records}
    # 5 holds too little tumour; 0, 1 and 9 no brain.
    assert labels == {2: "no_tumor", 3: "no_tumor", 4: "glioma", 6: "no_tumor", 7: "no_tumor", 8: "no_tumor"}
    assert {record.group for record in records} == {"BraTS2021_00000"}


def test_areas_are_in_square_millimetres(tmp_path: Path) -> None:
    write_subject(tmp_path, "S", zooms=0.5)  # the 12 voxels of tumour in slice 4 now cover 3 mm2
    records = read_dataset("brats", tmp_path, **OPTIONS)
    assert "glioma" not in {record.label for record in records}
    smaller = read_dataset("brats", tmp_path, **(OPTIONS | {"tumour_area": 3.0}))
    assert [record.id for record in smaller if record.label == "glioma"] == ["S/t1ce/004"]


def test_step_sequence_and_tumour_are_options(tmp_path: Path) -> None:
    write_subject(tmp_path, "A")
    write_subject(tmp_path, "B")
    records = read_dataset("brats", tmp_path, **(OPTIONS | {"step": 4, "sequence": "flair"}))
    assert [record.id for record in records] == ["A/flair/004", "A/flair/008", "B/flair/004", "B/flair/008"]
    assert records[0].load_image().max() == 451
    core = read_dataset("brats", tmp_path, **(OPTIONS | {"tumour": (1, 4), "tumour_area": 1.0}))
    masks = {record.id: record.load_mask for record in core}
    load = masks["A/t1ce/004"]
    assert load is not None
    assert load().sum() == 1


def test_wrong_volumes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no \\*_seg"):
        read_dataset("brats", tmp_path)
    write_subject(tmp_path, "A")
    with pytest.raises(DatasetError, match="no sequence 'dwi'"):
        read_dataset("brats", tmp_path, sequence="dwi")
    seg = tmp_path / "A" / "A_seg.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 3, np.uint8), np.eye(4)), seg)
    with pytest.raises(DatasetError, match=r"A_seg.nii.gz: segments \[3\]"):
        read_dataset("brats", tmp_path)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), seg)
    with pytest.raises(DatasetError, match="shape"):
        read_dataset("brats", tmp_path)
    (tmp_path / "A" / "A_t1ce.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"A_t1ce.nii.gz: missing"):
        read_dataset("brats", tmp_path)
