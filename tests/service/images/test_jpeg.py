from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import generate_frames

from service.errors import CorruptImage, UnsupportedFormat
from service.images.jpeg import unsupported_kind
from service.images.reading import read_frames
from tests.dicom_modules import put_pixels
from tests.dicom_writers import classic_mr, encoded

RAMP = (np.add.outer(np.arange(64), np.arange(80)) * 1.7).astype(np.uint8)


def jpeg(**options: object) -> bytes:
    out = BytesIO()
    Image.fromarray(RAMP).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def with_header(marker: int, at: int = 1, value: int | None = None) -> bytes:
    """A baseline file with another marker for its frame header, and another byte `at` behind it."""
    content = jpeg()
    start = content.index(b"\xff\xc0")
    changed = bytearray(content)
    changed[start + 1] = marker
    if value is not None:
        changed[start + at] = value
    return bytes(changed)


def codestream(bits: int, syntax: uid.UID) -> bytes:
    """What DICOM encapsulates, as a file of its own: a sound JPEG."""
    (ds,) = classic_mr([RAMP.astype(np.uint16) << (bits - 8)], bits=bits)
    if bits == 8:
        put_pixels(ds, RAMP)
    return next(generate_frames(encoded(ds, syntax).PixelData, number_of_frames=1))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (with_header(0xC3, 4, 12), "lossless JPEG of 12 bits a sample"),
        (codestream(16, uid.JPEGLossless), "lossless JPEG of 16 bits a sample"),
        (codestream(8, uid.JPEGLSLossless), "JPEG-LS"),
        (with_header(0xC1, 4, 12), "JPEG of 12 bits a sample"),
        (with_header(0xC2, 4, 12), "JPEG of 12 bits a sample"),
        (with_header(0xC5), "hierarchical JPEG"),
        (with_header(0xCB), "lossless JPEG with arithmetic coding"),
        (with_header(0xC0, 9, 2), "JPEG of 2 components"),
    ],
)
def test_a_kind_that_is_not_read_is_named(content: bytes, name: str) -> None:
    assert unsupported_kind(content) == name
    with pytest.raises(UnsupportedFormat) as caught:
        read_frames(content, "a")
    assert caught.value.detail == f"{name} is not supported"


def test_a_lossless_file_of_8_bits_is_read() -> None:
    (frame,) = read_frames(codestream(8, uid.JPEGLosslessSV1), "a")
    assert np.array_equal(frame.pixels, RAMP)


def test_a_progressive_file_is_read() -> None:
    (frame,) = read_frames(jpeg(progressive=True), "a")
    assert np.abs(frame.pixels.astype(int) - RAMP).max() < 4


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_cut_file_of_a_kind_that_is_read_is_damaged(progressive: bool, share: float) -> None:
    content = jpeg(progressive=progressive)
    with pytest.raises(CorruptImage):
        read_frames(content[: int(share * len(content))], "a")


@given(st.lists(st.sampled_from([b"\xff\xc5\0\x0b\x08", b"\xff\xe0\0\x04", b"\xff", b"\0\0\0\0\0"])).map(b"".join))
def test_only_a_frame_header_names_a_kind(body: bytes) -> None:
    name = unsupported_kind(b"\xff\xd8" + body)
    assert name is None or any(bytes((0xFF, marker)) in body for marker in (*range(0xC0, 0xD0), 0xF7))
