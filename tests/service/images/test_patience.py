"""Well-formed files of few pixels that would be read for minutes: each is ended, and ordinary ones are not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from service.errors import CorruptImage, SlowImage, TooManyPixels
from service.images import codecs, decoder_process, decoding, fragments, parsing, patience
from service.images.reading import read_frames
from service.images.tags import readable_header
from service.schemas import ImageFailure
from service.series.reading import read_series
from service.types import PreprocessingSpec
from service.uploads import Upload, budget_of, read_files
from tests.service.images.test_reading import RAMP, bundled, encode, instance, read_one, saved

GREY = (RAMP % 251).astype(np.uint8)
MANY = 20_000
ITEM, END_OF_ITEMS = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)


@pytest.fixture(autouse=True)
def no_child_is_left():
    yield
    decoder_process.end_all()


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes a millisecond further whenever somebody looks at it: 10,000 looks are too many."""
    looks = iter(range(10**9))
    monkeypatch.setattr(patience, "monotonic", lambda: next(looks) / 1000)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes = b"", within: bytes = b"", after: bytes = b"") -> bytes:
    content = encode(Image.fromarray(GREY))
    start = content.index(b"IDAT") - 4
    data = content[start + 8 : -16]  # without its checksum and IEND
    halves = (chunk(b"IDAT", data[:99]), chunk(b"IDAT", data[99:]))
    return content[:start] + before + halves[0] + within + halves[1] + after + chunk(b"IEND")


def jpeg(inserted: bytes = b"", image: Image.Image | None = None) -> bytes:
    content = encode(image or Image.fromarray(GREY), "JPEG")
    return content[:2] + inserted + content[2:]


PROFILE = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1000)))
RASTERS: dict[str, Callable[[int], bytes]] = {
    "unknown chunks": lambda count: png(before=chunk(b"abCd") * count),
    "profiles": lambda count: png(before=PROFILE * count),
    "empty data": lambda count: png(within=chunk(b"IDAT") * count),
    "trailing chunks": lambda count: png(after=chunk(b"abCd") * count),
    "comments": lambda count: jpeg(b"\xff\xfe\0\2" * count),
    "fill bytes": lambda count: jpeg(b"\xff" * count),
}


@pytest.mark.parametrize("name", RASTERS)
def test_png_and_jpeg_of_many_small_parts(name: str, ticking: None) -> None:
    assert read_frames(RASTERS[name](3), "x")[0].pixels.shape == GREY.shape
    with pytest.raises(SlowImage):
        read_frames(RASTERS[name](MANY), "x")


def elements(count: int) -> bytes:
    """Empty private elements."""
    return b"".join(struct.pack("<HH2sH", 0x29, 0x1000 + number, b"LO", 0) for number in range(count))


def with_elements(inserted: bytes, ds: Dataset | None = None) -> bytes:
    """Before the pixel data; in ascending order or not."""
    content = saved(ds or instance(GREY))
    at = content.rindex(PIXEL_DATA)
    return content[:at] + inserted + content[at:]


def meta_end(content: bytes) -> int:
    """(0002,0000) is the length of what comes after it (PS3.10 7.1)."""
    return 144 + int.from_bytes(content[140:144], "little")


def deflated(content: bytes) -> bytes:
    ds = instance(GREY)
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    start = saved(ds)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return start[: meta_end(start)] + deflater.compress(content[meta_end(content) :]) + deflater.flush()


def sequence(count: int) -> bytes:
    return struct.pack("<HH2s2xI", 0x29, 0x1000, b"SQ", 0xFFFFFFFF) + ITEM * count + END_OF_ITEMS


INSTANCES: dict[str, Callable[[int], bytes]] = {
    "elements": lambda count: with_elements(elements(count)),
    "items": lambda count: with_elements(sequence(count)),
    "deflated": lambda count: deflated(with_elements(elements(count))),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_dicom_of_many_elements(name: str, ticking: None) -> None:
    np.testing.assert_array_equal(read_frames(INSTANCES[name](3), "x")[0].pixels, GREY)
    with pytest.raises(SlowImage):
        read_frames(INSTANCES[name](MANY), "x")


def test_the_other_files_of_a_request_are_answered(ticking: None) -> None:
    spec = PreprocessingSpec(field_of_view="scan", size=32)
    files = [encode(Image.fromarray(GREY)), RASTERS["unknown chunks"](MANY), saved(instance(GREY))]
    uploads = [(n, Upload(f"{n}", content)) for n, content in enumerate(files)]
    before, slow, after = read_files(uploads, spec, budget_of(None))
    assert isinstance(slow, ImageFailure)
    assert slow.error.type.endswith("slow-image")
    assert not isinstance(before, ImageFailure)
    assert not isinstance(after, ImageFailure)
    (series,) = read_series([INSTANCES["elements"](MANY), saved(instance(GREY, SeriesInstanceUID="1.2"))])
    assert len(series.slices) == 1
    assert [one.reason for one in series.left_out] == ["the file takes too long to read"]


# What is not read element by element, but converted when it is asked for


LONG = 100_000
HEADERS = {
    "sequence of defined length": struct.pack("<HH2s2xI", 0x29, 0x1000, b"SQ", LONG) + ITEM * (LONG // 8),
    "text": struct.pack("<HH2s2xI", 0x29, 0x1000, b"UC", LONG) + b"1\\" * (LONG // 2),
    "offsets of frames": struct.pack("<HH2s2xI", 0x7FE0, 0x0001, b"OV", LONG) + bytes(LONG),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("pack", [bytes, deflated], ids=["plain", "deflated"])
def test_a_header_that_is_large_beside_the_pixels(
    name: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pack(with_elements(HEADERS[name]))
    assert "PixelData" in parsing.parse(content)
    monkeypatch.setattr(parsing, "MAX_HEADER", LONG)
    with pytest.raises(SlowImage, match="header"):
        read_frames(content, "x")


def test_what_is_binary_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_HEADER", 5000)
    raw = struct.pack("<HH2s2xI", 0x29, 0x1000, b"OB", LONG) + bytes(LONG)
    large = instance(np.tile(GREY, (40, 1)))
    for content in (with_elements(raw), saved(large)):
        assert read_frames(content, "x")
    large.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    assert read_frames(saved(large), "x")


def test_the_largest_header_is_within_reach() -> None:
    """At its limit pydicom converts some hundred thousand elements; the limit is what keeps it from millions."""
    content = with_elements(elements(60_000))
    assert len(content) < parsing.MAX_HEADER
    header, damaged = readable_header(parsing.parse(content))
    assert len(header) > 60_000
    assert not damaged


def test_deflated_is_what_it_was_before_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = with_elements(b"", instance(RAMP, WindowCenter="900", WindowWidth="800"))
    content = deflated(plain)
    np.testing.assert_array_equal(read_frames(content, "x")[0].pixels, read_frames(plain, "x")[0].pixels)
    assert parsing.parse(content).file_meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian
    with pytest.raises(CorruptImage):
        read_frames(content[:-40], "x")
    # where it is said that it is deflated does not matter
    monkeypatch.setattr(parsing, "_MAX_INFLATED", 1 << 16)
    ds = instance(np.zeros((1024, 1024), np.uint8))
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    bomb = saved(ds)
    far = struct.pack("<HH2s2xI", 0x0002, 0x0001, b"OB", 1 << 17) + bytes(1 << 17)
    for one in (bomb, bomb[:144] + far + bomb[144 + 14 :]):
        with pytest.raises(TooManyPixels):
            read_frames(one, "x")


# Compressed pixel data


def compressed(frame: bytes, syntax: uid.UID, stored: Any = GREY) -> Dataset:
    ds = instance(stored, "RGB" if stored.ndim == 3 else "MONOCHROME2")
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    return ds


def rle(*segments: bytes) -> bytes:
    starts = np.cumsum([64, *map(len, segments[:-1])])
    return struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def test_a_frame_in_very_many_fragments() -> None:
    ds = instance(GREY)
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    data = ds.PixelData
    np.testing.assert_array_equal(read_one(ds).pixels, GREY)
    for found in (data + ITEM * (fragments.MAX_FRAGMENTS + 1), data[:4] + struct.pack("<I", 2**20) + bytes(2**20)):
        ds.PixelData = found
        with pytest.raises(SlowImage, match="fragments"):
            read_one(ds)


@pytest.mark.parametrize("inserted", [b"\xff", b"\xff\xfe\0\2"], ids=["fill", "comments"])
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGLSLossless], ids=lambda syntax: syntax.keyword)
def test_a_compressed_frame_of_many_segments(inserted: bytes, syntax: uid.UID) -> None:
    ds = instance(GREY)
    if syntax == uid.JPEGLSLossless:
        ds.compress(syntax, generate_instance_uid=False)
        frame = next(iter(generate_frames(ds.PixelData, number_of_frames=1)))
    else:
        frame = jpeg()
    assert read_one(compressed(frame, syntax)).pixels.shape == GREY.shape
    with pytest.raises(SlowImage, match="segments"):
        read_one(compressed(frame[:2] + inserted * MANY + frame[2:], syntax))


def test_segments_between_the_size_and_the_pixels(ticking: None) -> None:
    """Pillow walks over them, too."""
    content = jpeg()
    at = content.index(b"\xff\xda")
    assert read_one(compressed(content, uid.JPEGBaseline8Bit)).pixels.shape == GREY.shape
    with pytest.raises(SlowImage, match="too long"):
        read_one(compressed(content[:at] + b"\xff\xfe\0\2" * MANY + content[at:], uid.JPEGBaseline8Bit))


def test_a_frame_that_only_the_extended_offset_table_shows() -> None:
    """The decoder takes it from there, so it is looked at there."""
    scans = encode(Image.fromarray(GREY), "JPEG", progressive=True)
    slow = scans[:-2] + scans[scans.rfind(b"\xff\xda") : -2] * 100 + b"\xff\xd9"
    good = jpeg()
    good += bytes(len(good) % 2)
    ds = compressed(good, uid.JPEGBaseline8Bit)
    ds.PixelData = encapsulate([good, slow], has_bot=False)
    ds.ExtendedOffsetTable = struct.pack("<Q", len(good) + 8)
    ds.ExtendedOffsetTableLengths = struct.pack("<Q", len(slow))
    with pytest.raises(SlowImage, match="scans"):
        read_one(ds)
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = bytes(8), struct.pack("<Q", len(good))
    assert read_one(ds).pixels.shape == GREY.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
def test_large_rle_is_decoded_apart_and_the_same(dtype: type, colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = (RAMP * 31).astype(dtype)
    ds = instance(
        np.dstack([stored, stored // 2, stored // 3]) if colour else stored, "RGB" if colour else "MONOCHROME2"
    )
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    here = read_one(ds)
    assert decoder_process._idle == []
    monkeypatch.setattr(decoding, "_LARGE_RLE", 100)
    apart = read_one(ds)
    assert len(decoder_process._idle) == 1
    np.testing.assert_array_equal(here.pixels, apart.pixels)
    assert here.colour == apart.colour


def test_rle_that_makes_gigabytes_is_refused_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 times its size: here 1.5 GiB, of the largest upload 16 GiB."""
    monkeypatch.setattr(decoder_process, "_PATIENCE", 60.0)
    with pytest.raises(CorruptImage):
        read_one(compressed(rle(b"\x81\1" * 12 * 2**20), uid.RLELossless))
    (child,) = decoder_process._idle
    assert child.lives()


def test_rle_that_works_for_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rle(b"\x80" * 40 * 2**20 + b"".join(b"\0" + bytes([value]) for value in GREY.ravel()))
    monkeypatch.setattr(decoder_process, "_PATIENCE", 0.01)
    with pytest.raises(SlowImage):
        read_one(compressed(frame, uid.RLELossless))
    assert decoder_process._idle == []


def test_12_bit_frames_have_a_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = parsing.parse(bundled("JPGExtended.dcm"))
    frame = next(iter(generate_frames(ds.PixelData, number_of_frames=1)))
    ds.NumberOfFrames, ds.PixelData = 8, encapsulate([frame] * 8)
    content = BytesIO()
    ds.save_as(content)
    assert len(read_frames(content.getvalue(), "x")) == 8
    monkeypatch.setattr(codecs, "Patience", lambda _pixels: late)
    late = patience.Patience()
    late.until = 0.0
    with pytest.raises(SlowImage):
        read_frames(content.getvalue(), "x")


# Palettes


def palette(segmented: list[int]) -> Dataset:
    elements: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [251, 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = struct.pack(f"<{len(segmented)}H", *segmented)
    return instance(GREY, "PALETTE COLOR", **elements)


def test_a_segmented_palette_is_expanded_as_far_as_it_is_honest() -> None:
    ramp = [0, 1, 0, 1, 124, 124 * 256]  # one entry, then a line of 124
    twice = [*ramp, 2, 2, 0, 0, 0, 1, 0]  # both again, and one more
    expected = np.where(GREY == 250, 0, GREY % 125)
    np.testing.assert_array_equal(read_one(palette(twice)).pixels, expected)
    bomb, previous = [0, 1, 7], 0
    for _ in range(40):  # each two times the one before
        here = len(bomb)
        bomb += [0, 1, 7, *[2, 2, previous, 0] * 2]
        previous = here
    with pytest.raises(CorruptImage, match="palette"):
        read_one(palette(bomb))
