from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from training.datasets import read_dataset
from training.datasets.record import DatasetError

IMAGE = np.arange(5 * 7, dtype=np.int16).reshape(5, 7) * 40 - 100  # 5 rows, 7 columns
MASK = np.zeros((5, 7), np.uint8)
MASK[1:3, 4:7] = 1


def write_mat(path: Path, label: float, patient: str) -> None:
    """A file as MATLAB's `save -v7.3` writes it: a 512-byte header block, then HDF5 with every matrix transposed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        struct = file.create_group("cjdata")
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        struct["label"] = np.array([[label]], np.float64)
        struct["PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        struct["image"] = IMAGE.T
        struct["tumorMask"] = MASK.T
        struct["tumorBorder"] = np.array([[4.0, 1.0, 6.0, 2.0]]).T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + bytes(8) + b"\x00\x02IM")


def test_label_patient_pixels_and_mask_are_read_as_matlab_shows_them(tmp_path: Path) -> None:
    write_mat(tmp_path / "brainTumorDataPublic_1-766" / "2.mat", 2.0, "100360")
    write_mat(tmp_path / "brainTumorDataPublic_1-766" / "10.mat", 3.0, "100360")
    write_mat(tmp_path / "brainTumorDataPublic_767-1532" / "800.mat", 1.0, "MR0402B")
    records = read_dataset("figshare", tmp_path)
    assert [(Path(r.id).name, r.label, r.group) for r in records] == [
        ("2.mat", "glioma", "100360"),
        ("10.mat", "pituitary", "100360"),
        ("800.mat", "meningioma", "MR0402B"),
    ]
    image = records[0].load_image()
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, IMAGE)
    assert records[0].load_mask is not None
    np.testing.assert_array_equal(records[0].load_mask(), MASK)


def test_pixels_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write_mat(tmp_path / "1.mat", 1.0, "7")
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"]
    (record,) = read_dataset("figshare", tmp_path)
    with pytest.raises(DatasetError, match=r"1\.mat: holds no cjdata/image"):
        record.load_image()


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.mat files"):
        read_dataset("figshare", tmp_path)
    (tmp_path / "1.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DatasetError, match=r"1\.mat: not a MATLAB v7.3 file"):
        read_dataset("figshare", tmp_path)
    write_mat(tmp_path / "1.mat", 4.0, "7")
    with pytest.raises(DatasetError, match="label is 4"):
        read_dataset("figshare", tmp_path)
