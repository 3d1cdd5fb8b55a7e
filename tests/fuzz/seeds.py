"""Good files to start from: those that pydicom brings, and synthetic series in many encodings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from tests.dicom_writers import classic_mr, enhanced_mr, ophthalmic_tomography, saved

LARGEST = 400_000  # bytes
_ENCODED = Path(__file__).parent / "encoded"
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian
_COMPRESSED = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.DeflatedExplicitVRLittleEndian)


@cache
def seeds() -> Sequence[bytes]:
    """Every seed, in a fixed order; synthetic ones are first, and few hold no image."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    files = [path.read_bytes() for path in sorted(folder.glob("*.dcm")) if path.stat().st_size <= LARGEST]
    images = [content for content in files if any(tag in content for tag in _PIXEL_DATA)]
    others = [content for content in files if content not in images]
    return (*synthetic(), *images, *others[::4])


@cache
def synthetic() -> Sequence[bytes]:
    """Invented patients: classic and enhanced MR, ophthalmic tomography; in several encodings."""
    random = np.random.default_rng(0)
    grey = [random.integers(0, 256, (64, 64), np.uint8) for _ in range(3)]
    deep = [image.astype(np.int16) * 16 - 1000 for image in grey]
    plain = [
        *classic_mr(grey, window=(128, 256)),
        *classic_mr(
            deep, "signed", bits=16, PhotometricInterpretation="MONOCHROME1", RescaleSlope="1", RescaleIntercept="0"
        ),
        enhanced_mr(grey),
        ophthalmic_tomography(grey),
    ]
    found = [saved(ds) for ds in plain]
    found += [saved(_coloured(plain[0], name)) for name in ("RGB", "YBR_FULL")]
    for content in (found[0], found[3], found[6], found[7], found[8]):
        found += [_recoded(content, syntax) for syntax in _COMPRESSED]
        found.append(_recoded(content, uid.ImplicitVRLittleEndian))
    encoded = [path.read_bytes() for path in sorted(_ENCODED.glob("jpeg-*.dcm"))]  # pydicom cannot encode these
    return (*found, *encoded)


def _coloured(ds: Dataset, photometric: str) -> Dataset:
    coloured = copy.deepcopy(ds)
    for name in ("WindowCenter", "WindowWidth"):
        del coloured[name]
    coloured.PhotometricInterpretation, coloured.SamplesPerPixel, coloured.PlanarConfiguration = photometric, 3, 0
    coloured.BitsAllocated, coloured.BitsStored, coloured.HighBit = 8, 8, 7
    coloured.PixelData = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8).tobytes()
    return coloured


def _recoded(content: bytes, syntax: uid.UID) -> bytes:
    ds = pydicom.dcmread(BytesIO(content))
    if syntax.is_compressed and not syntax.is_deflated:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    return saved(ds)
