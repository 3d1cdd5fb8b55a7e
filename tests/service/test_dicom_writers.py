"""The writers that other tests stand on: what they write is valid, and the same every time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from tests.dicom_writers import classic_mr, encoded, enhanced_mr, in_photometric, ophthalmic_tomography, saved

ROOT = Path(__file__).resolve().parents[2]
IMAGES = [np.add.outer(np.arange(40), np.arange(48) * 2).astype(np.uint8) + index for index in range(3)]
# What the tool says of any Ophthalmic Tomography image: see `ophthalmic_tomography_modules`.
CONTRADICTIONS = ("ConcatenationFrameOffsetNumber", "InConcatenationNumber", "InConcatenationTotalNumber")


def found_wrong(ds: Dataset, folder: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    path = folder / "x.dcm"
    path.write_bytes(saved(ds))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "the tool names the object that it sees"
    return [line for line in lines if line.startswith(("Error", "Warning"))]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_magnetic_resonance_is_valid(dtype: type, tmp_path: Path) -> None:
    images = [image.astype(dtype) for image in IMAGES]
    assert found_wrong(classic_mr(images, window=(90, 120))[1], tmp_path) == []
    if dtype is not np.int16:
        assert found_wrong(enhanced_mr(images), tmp_path) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ophthalmic_tomography_is_valid_but_for_the_tools_contradiction(dtype: type, tmp_path: Path) -> None:
    wrong = found_wrong(ophthalmic_tomography([image.astype(dtype) for image in IMAGES]), tmp_path)
    assert len(wrong) == 3
    assert all(any(f"<{name}>" in line for name in CONTRADICTIONS) for line in wrong)


def test_the_tool_would_notice_a_missing_element(tmp_path: Path) -> None:
    ds = enhanced_mr(IMAGES)
    del ds.ResonantNucleus
    assert any("ResonantNucleus" in line for line in found_wrong(ds, tmp_path))


def test_the_same_call_writes_the_same_bytes_and_another_name_other_uids() -> None:
    assert saved(enhanced_mr(IMAGES, "a")) == saved(enhanced_mr(IMAGES, "a"))
    one, other = classic_mr(IMAGES, "a"), classic_mr(IMAGES, "b")
    assert len({ds.SOPInstanceUID for ds in one + other}) == 6
    assert len({ds.SeriesInstanceUID for ds in one + other}) == 2


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.RLELossless, uid.ImplicitVRLittleEndian])
def test_a_transfer_syntax_keeps_the_values(syntax: uid.UID) -> None:
    ds = classic_mr(IMAGES)[0]
    other = encoded(ds, syntax)
    assert other.file_meta.TransferSyntaxUID == syntax
    assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert np.array_equal(other.pixel_array, ds.pixel_array)


def test_a_photometric_interpretation_changes_the_stored_values() -> None:
    ds = classic_mr(IMAGES, bits=8)[0]
    assert np.array_equal(in_photometric(ds, "MONOCHROME1").pixel_array, 255 - ds.pixel_array)
    assert in_photometric(ds, "RGB").pixel_array.shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("kind", "files", "sop_class"),
    [
        ("classic-mr", 3, uid.MRImageStorage),
        ("enhanced-mr", 1, uid.EnhancedMRImageStorage),
        ("ophthalmic-tomography", 1, uid.OphthalmicTomographyImageStorage),
    ],
)
def test_a_folder_of_images_becomes_a_series(kind: str, files: int, sop_class: uid.UID, tmp_path: Path) -> None:
    for index, image in enumerate(IMAGES):
        Image.fromarray(image[: 40 - index]).save(tmp_path / f"{index}.png")
    command = [sys.executable, "-m", "tests.dicom_writers", str(tmp_path), str(tmp_path / "out"), "--as", kind]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    written = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [ds.SOPClassUID for ds in written] == [sop_class] * files
    pixels = np.concatenate([ds.pixel_array.reshape(-1, 40, 48) for ds in written])
    assert np.array_equal(pixels[0], IMAGES[0])
    assert np.array_equal(pixels[2][1:-1], IMAGES[2][:38])  # padded with black to the largest
    assert not pixels[2][[0, -1]].any()
