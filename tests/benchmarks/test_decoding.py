from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from benchmarks import decoding
from service.images.reading import read_frames
from tests.dicom_writers import classic_mr, encoded, enhanced_mr, in_photometric, saved

needs_dcmtk = pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="dcmtk is not installed")
IMAGE = (np.add.outer(np.arange(40), np.arange(48) ** 2) % 900).astype(np.uint16)


def files() -> dict[str, bytes]:
    """Each with the verdict that it must get."""
    (plain,) = classic_mr([IMAGE])
    (windowed,) = classic_mr([IMAGE], window=(300, 200))
    (narrow,) = classic_mr([IMAGE % 256], bits=8)
    (report,) = classic_mr([IMAGE], PixelData=None, Rows=None)
    whole = saved(encoded(windowed, uid.JPEGLSLossless))
    return {
        "same plain": saved(plain),
        "same windowed": saved(windowed),
        "same inverted": saved(in_photometric(windowed, "MONOCHROME1")),
        "same palette": saved(in_photometric(narrow, "PALETTE COLOR")),
        "same jpeg-ls": whole,
        "same lossless": saved(encoded(windowed, uid.JPEGLosslessSV1)),
        "same frames": saved(enhanced_mr([IMAGE, IMAGE // 2], window=(300, 200))),
        "only here jpeg 2000": saved(encoded(plain, uid.JPEG2000Lossless)),
        "neither cut": whole[:-40],
        "no image report": saved(report),
    }


@needs_dcmtk
def test_files_are_compared_with_dcmtk(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out.json"
    data.mkdir()
    for name, content in files().items():
        (data / name).write_bytes(content)
    (data / "notes.txt").write_text("no DICOM")
    assert decoding.main([str(data), "--json", str(out)]) == 0
    rows = json.loads(out.read_bytes())["rows"]
    assert {row["file"] for row in rows} == set(files())
    for row in rows:
        assert row["file"].startswith(row["verdict"])
        assert (row["correlation"] or 1) > 0.9999
    (frames,) = [row for row in rows if row["file"] == "same frames"]
    assert frames["frames"] == 2


@needs_dcmtk
def test_a_picture_that_is_another_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_bytes(files()["same plain"])
    monkeypatch.setattr(decoding, "display", lambda frame: frame.pixels[::-1])
    assert decoding.main([str(tmp_path)]) == 1


@pytest.mark.parametrize("name", decoding.EXPLAINED)
def test_what_is_explained_is_so(name: str) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    found, original = (read_frames((folder / one).read_bytes(), "") for one in (name, name.replace("_expb", "")))
    assert len(found) == len(original)
    for one, other in zip(found, original, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_correlation_of_pictures_without_contrast() -> None:
    flat = np.zeros((4, 4))
    assert decoding.correlation(flat, flat + 1) == 1
    assert decoding.correlation(flat, IMAGE[:4, :4]) == 0
    assert decoding.correlation(IMAGE, IMAGE[:4, :4]) == 0
    assert decoding.correlation(IMAGE, 3.0 * IMAGE + 7) == pytest.approx(1)
