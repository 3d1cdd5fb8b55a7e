"""Compressed frames: which pieces they are of, what they say themselves, and what becomes of unusual ones."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from service import errors
from service.images import decoder_process
from service.images.dicom import decode, describe
from service.images.parsing import parse
from service.images.reading import read_frames
from service.images.zeiss import unscrambled
from tests.dicom_writers import encoded
from tests.service.images.test_layout import changed, content_of, newer, read
from tests.service.images.test_reading import BOUNDED, RAMP, encode, instance, read_one, saved

GREY = (RAMP % 251).astype(np.uint8)
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
BLOCKS = np.arange(30).reshape(5, 6)  # of 8 x 8 pixels: RAMP's shape
ITEM = b"\xfe\xff\x00\xe0"
SPECTRAL, PROGRESSIVE = "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"


@pytest.fixture(autouse=True, scope="module")
def no_child_is_left():
    yield
    decoder_process.end_all()


def frame_of(ds: Dataset) -> bytes:
    return next(iter(generate_frames(ds.PixelData, number_of_frames=1)))


def compressed(frame: bytes, syntax: uid.UID, stored: NDArray[Any] = GREY, **elements: Any) -> Dataset:
    """An instance of a frame, with its own end, and what is put behind it."""
    ds = instance(stored, "RGB" if stored.ndim == 3 else "MONOCHROME2")
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    return changed(ds, **elements)


def items(*values: bytes) -> bytes:
    """Encapsulated as it is said: the first one is the Basic Offset Table."""
    return b"".join(ITEM + struct.pack("<I", len(value)) + value for value in values)


# Lossy JPEG of any process and depth, written by hand


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def dct(blocks: NDArray[Any], bits: int, process: int) -> bytes:
    """A JPEG whose blocks have one value each: SOF0, SOF1 or SOF2 (T.81 B.2.2), Huffman tables of equal lengths."""
    rows, columns = (8 * size for size in blocks.shape)
    code, previous = "", 0
    for value in blocks.ravel().tolist():
        difference = value - (1 << (bits - 1)) - previous
        previous += difference
        size = abs(difference).bit_length()
        code += f"{size:05b}" + (f"{difference + (difference < 0) * ((1 << size) - 1):0{size}b}" if size else "")
        code += "" if process == 2 else "00"  # the end of the block
    code += "1" * (-len(code) % 8)
    scan = bytes(int(code[at : at + 8], 2) for at in range(0, len(code), 8)).replace(b"\xff", b"\xff\0")
    progressive = segment(0xDA, b"\1\1\0\1\x3f\0") + bytes(-(-blocks.size // 4))  # the end of every block
    tables = b"\0" + bytes([0, 0, 0, 0, 16, *[0] * 11, *range(16)])  # DC: 16 codes of 5 bits
    tables += b"\x10" + bytes([0, 1, *[0] * 14, 0])  # AC: one of 2 bits
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([8] * 64)),  # so that a coefficient is the mean of its block
            segment(0xC0 + process, struct.pack(">BHHB", bits, rows, columns, 1) + b"\1\x11\0"),
            segment(0xC4, tables),
            segment(0xDA, b"\1\1\0" + (b"\0\0\0" if process == 2 else b"\0\x3f\0")),
            scan,
            progressive if process == 2 else b"",
            b"\xff\xd9",
        ]
    )


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, SPECTRAL, PROGRESSIVE])
@pytest.mark.parametrize("process", [0, 1, 2])
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("header", [(8, 8), (16, 8), (16, 12), (16, 16), (12, 12)])
def test_lossy_jpeg_tells_its_depth_itself(syntax: str, process: int, bits: int, header: tuple[int, int]) -> None:
    if process == 0 and bits == 12:
        process = 1  # baseline has 8 bits
    blocks = BLOCKS * ((1 << bits) // 31)
    ds = newer(instance(GREY), syntax, dct(blocks, bits, process))
    changed(ds, BitsAllocated=header[0], BitsStored=header[1], HighBit=header[1] - 1)
    np.testing.assert_array_equal(read(ds).pixels, np.kron(blocks, np.ones((8, 8))))


def test_jpeg_that_is_arithmetic_coded_is_named() -> None:
    frame = dct(BLOCKS, 8, 0).replace(b"\xff\xc0", b"\xff\xc9")
    with pytest.raises(errors.UnsupportedTransferSyntax, match=r"arithmetic .* is not supported"):
        read_one(compressed(frame, uid.JPEGBaseline8Bit))


@pytest.mark.parametrize("stored", [8, 12, 16])
@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless])
def test_frames_of_fewer_bits_than_the_header_says(syntax: uid.UID, stored: int) -> None:
    ds = changed(encoded(instance(GREY), syntax), BitsAllocated=16, BitsStored=stored, HighBit=stored - 1)
    np.testing.assert_array_equal(read_one(ds).pixels, GREY)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless])
def test_frames_of_more_bits_than_the_header_says(syntax: uid.UID) -> None:
    ds = changed(encoded(instance(RAMP * 7), syntax), BitsAllocated=8, BitsStored=8, HighBit=7)
    np.testing.assert_array_equal(read_one(ds).pixels, RAMP * 7)


@pytest.mark.parametrize(
    ("syntax", "high"),
    [
        (uid.JPEGLosslessSV1, 11),  # its encoder keeps them
        *[(syntax, high) for syntax in (uid.JPEGLSLossless, uid.JPEG2000Lossless) for high in (11, 15)],
    ],
)
def test_frames_without_the_unused_bits_of_the_header(syntax: uid.UID, high: int) -> None:
    values = (RAMP * 2).astype(np.int16) - 1900
    ds = encoded(instance((values & 0xFFF).astype(np.uint16), BitsStored=12), syntax)
    ds = changed(ds, PixelRepresentation=1, HighBit=high)
    np.testing.assert_array_equal(read_one(ds).pixels, values)


def test_jpeg_2000_may_have_a_sign_of_its_own() -> None:
    values = (RAMP % 256).astype(np.int16) - 100
    ds = encoded(instance(values), uid.JPEG2000Lossless)
    np.testing.assert_array_equal(read_one(ds).pixels, values)
    found = read_one(changed(ds, PixelRepresentation=0)).pixels
    np.testing.assert_array_equal(found, values.view(np.uint16))


# Colour


COLOUR_SYNTAXES = [uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless]


@pytest.mark.parametrize("syntax", COLOUR_SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("planar", [None, 0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_compressed_colour_has_an_order_of_its_own(syntax: uid.UID, planar: int | None, photometric: str) -> None:
    smooth = np.kron(RGB[::8, ::8], np.ones((8, 8, 1), np.uint8))
    if syntax == uid.JPEGBaseline8Bit:
        mode = "RGB" if photometric == "RGB" else "YCbCr"
        raw = encode(Image.fromarray(smooth), "JPEG", quality=100, subsampling=0, keep_rgb=True)
        if mode == "YCbCr":
            raw = encode(Image.fromarray(smooth, mode), "JPEG", quality=100, subsampling=0)
        ds = compressed(raw, syntax, smooth)
    else:
        ds = encoded(instance(smooth, "RGB"), syntax)
    changed(ds, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
    expected, found = read_one(instance(smooth, photometric)), read_one(ds)
    lossy = syntax == uid.JPEGBaseline8Bit
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= (3 if lossy else 0)
    assert found.colour == pytest.approx(expected.colour, abs=0.01 if lossy else 0)


def without_jfif(jpeg: bytes) -> bytes:
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]


@pytest.mark.parametrize("told", ["JFIF", "Adobe", "JFIF and Adobe", "letters", "small letters"])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_a_jpeg_that_tells_its_colours_is_right(told: str, photometric: str) -> None:
    flat = np.full((40, 48, 3), (200, 40, 90), np.uint8)
    jfif = encode(Image.fromarray(flat), "JPEG", quality=98)
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
    if told == "letters" or told == "small letters":
        frame = bytearray(without_jfif(encode(Image.fromarray(flat, "YCbCr"), "JPEG", quality=98, subsampling=0)))
        for marker, at, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
            for index, letter in enumerate(b"RGB" if told == "letters" else b"rgb"):
                frame[frame.index(marker) + at + index * step] = letter
    else:
        frame = without_jfif(jfif) if told == "Adobe" else jfif
        frame = frame[:2] + adobe + frame[2:] if "Adobe" in told else frame
    found = read_one(compressed(bytes(frame), uid.JPEGBaseline8Bit, flat, PhotometricInterpretation=photometric))
    assert abs(int(found.pixels[20, 20]) - int(read_one(instance(flat, "RGB")).pixels[0, 0])) <= 2
    assert found.colour == pytest.approx(160 / 255, abs=0.02)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_of_a_jpeg_that_does_not_tell_the_header_does(photometric: str) -> None:
    flat = np.full((40, 48, 3), (200, 40, 90), np.uint8)
    frame = without_jfif(encode(Image.fromarray(flat, "YCbCr"), "JPEG", quality=98, subsampling=0))  # as it is
    found = read_one(compressed(frame, uid.JPEGBaseline8Bit, flat, PhotometricInterpretation=photometric))
    expected = read_one(instance(flat, photometric.removesuffix("_422")))
    assert abs(int(found.pixels[20, 20]) - int(expected.pixels[0, 0])) <= 2
    assert found.colour == pytest.approx(expected.colour, abs=0.02)


@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2"])
def test_other_samples_than_the_header_says(photometric: str) -> None:
    frame = encode(Image.fromarray(GREY if photometric == "RGB" else RGB), "JPEG")
    stored = RGB if photometric == "RGB" else GREY
    with pytest.raises(errors.CorruptImage, match="other samples per pixel"):
        read_one(compressed(frame, uid.JPEGBaseline8Bit, stored))


# Ends


@pytest.mark.parametrize("tail", [b"\xff", b"\xff\xff", b"\xff" * 7, b"\0\xff", b"\xff\0\0", b"\0" * 9])
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, *COLOUR_SYNTAXES[1:]], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("stored", [GREY, RGB], ids=["grey", "colour"])
def test_padding_behind_a_frame(syntax: uid.UID, tail: bytes, stored: NDArray[Any]) -> None:
    if syntax == uid.JPEGBaseline8Bit:
        ds = compressed(encode(Image.fromarray(stored), "JPEG"), syntax, stored)
    else:
        ds = encoded(instance(stored, "RGB" if stored.ndim == 3 else "MONOCHROME2"), syntax)
    expected = read_one(ds)
    frame = frame_of(ds) if syntax == uid.RLELossless else frame_of(ds).rstrip(b"\0")
    found = read_one(changed(ds, PixelData=items(b"", frame + tail)))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


@pytest.mark.parametrize("zeros", [1, 2, 5])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\xff\xff"])
@pytest.mark.parametrize("stored", [GREY, RAMP * 7, RGB], ids=["8", "16", "colour"])
def test_zero_bytes_before_the_end_of_jpeg_ls(zeros: int, tail: bytes, stored: NDArray[Any]) -> None:
    plain = instance(stored, "RGB" if stored.ndim == 3 else "MONOCHROME2")
    ds = encoded(plain, uid.JPEGLSLossless)
    frame = frame_of(ds).rstrip(b"\0")
    assert frame.endswith(b"\xff\xd9")
    found = read_one(changed(ds, PixelData=items(b"", frame[:-2] + bytes(zeros) + frame[-2:] + tail)))
    np.testing.assert_array_equal(found.pixels, read_one(plain).pixels)


def test_zero_bytes_before_every_scan_of_jpeg_ls() -> None:
    """Colour by plane has a scan for each component."""
    jpeg_ls = pytest.importorskip("jpeg_ls")
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    frame = bytes(jpeg_ls.encode_array(planes, interleave_mode=0))
    scans = frame.split(b"\xff\xda")
    assert len(scans) == 4
    stuffed = b"\xff\xda".join([scans[0], scans[1] + b"\0", scans[2] + b"\0\0", scans[3]])
    expected = read_one(compressed(frame, uid.JPEGLSLossless, RGB))
    np.testing.assert_array_equal(expected.pixels, read_one(instance(RGB, "RGB")).pixels)
    np.testing.assert_array_equal(read_one(compressed(stuffed, uid.JPEGLSLossless, RGB)).pixels, expected.pixels)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_frame_that_ends_early_is_called_truncated(syntax: uid.UID, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    frame = frame_of(encoded(instance(noise), syntax))
    with pytest.raises(errors.CorruptImage, match="truncated") as caught:
        read_one(compressed(frame[: int(share * len(frame))], syntax, noise))
    assert "damaged" not in str(caught.value)


def test_jpeg_2000_that_lacks_nothing_but_its_end() -> None:
    frame = frame_of(encoded(instance(GREY), uid.JPEG2000Lossless)).rstrip(b"\0")
    assert frame.endswith(b"\xff\xd9")
    np.testing.assert_array_equal(read_one(compressed(frame[:-2], uid.JPEG2000Lossless)).pixels, GREY)


# Which pieces are of which frame


STACK = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])
FRAME_SYNTAXES = [uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]


def stack_of(syntax: uid.UID) -> tuple[Dataset, list[bytes]]:
    """Three frames, and how they are stored."""
    ds = encoded(instance(STACK, frames=3), syntax)
    return ds, list(generate_frames(ds.PixelData, number_of_frames=3))


def check_stack(ds: Dataset, count: int = 3) -> list[Any]:
    found = read_frames(content_of(ds), "x")
    assert len(found) == count
    for frame, expected in zip(found, STACK, strict=False):
        np.testing.assert_array_equal(frame.pixels, expected)
    return found


def halves(frame: bytes) -> list[bytes]:
    middle = len(frame) // 4 * 2
    return [frame[:middle], frame[middle:]]


TABLES = {
    "none": [],
    "short": [0],
    "zeros": [0, 0, 0],
    "wrong": [0, 10, 20],
    "far": [0, 2**31, 2**32 - 1],
    "backwards": [0, 600, 30],
    "long": [0, 1, 2, 3, 4],
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("syntax", FRAME_SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("pieces", [1, 2])
def test_the_pieces_are_right_where_a_table_is_wrong(name: str, syntax: uid.UID, pieces: int) -> None:
    ds, frames = stack_of(syntax)
    parts = [part for frame in frames for part in (halves(frame) if pieces == 2 else [frame])]
    table = struct.pack(f"<{len(TABLES[name])}I", *TABLES[name])
    check_stack(changed(ds, PixelData=items(table, *parts)))
    check_stack(changed(ds, PixelData=items(table, *parts, b"")))  # an empty piece at the end
    for offsets in (TABLES[name], [0, 8, 16]):
        ds.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        ds.ExtendedOffsetTableLengths = struct.pack(f"<{len(offsets)}Q", *[7] * len(offsets))
        check_stack(ds)


@pytest.mark.parametrize("syntax", FRAME_SYNTAXES[1:], ids=lambda syntax: syntax.keyword)
def test_frames_in_one_piece(syntax: uid.UID) -> None:
    ds, frames = stack_of(syntax)
    check_stack(changed(ds, PixelData=items(b"", b"".join(frames))))
    check_stack(changed(ds, PixelData=items(b"", b"\xff".join(frame.rstrip(b"\0") for frame in frames))))


@pytest.mark.parametrize("syntax", FRAME_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_table_that_is_not_there(syntax: uid.UID) -> None:
    ds, frames = stack_of(syntax)
    check_stack(changed(ds, PixelData=items(*frames)))


def test_a_frame_that_is_not_in_pieces() -> None:
    frame = frame_of(encoded(instance(GREY), uid.JPEG2000Lossless))
    ds = compressed(frame, uid.JPEG2000Lossless)
    whole = saved(ds)
    start = whole.index(b"\xe0\x7f\x10\x00OB")
    plain = whole[:start] + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", len(frame)) + frame
    np.testing.assert_array_equal(read_frames(plain, "x")[0].pixels, GREY)


@pytest.mark.parametrize("syntax", FRAME_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_fewer_frames_than_announced(syntax: uid.UID) -> None:
    ds, frames = stack_of(syntax)
    for parts in (frames[:2], frames[:1]):
        found = check_stack(changed(ds, PixelData=items(b"", *parts)), len(parts))
        assert all(any("fewer frames" in warning for warning in frame.warnings) for frame in found)
    with pytest.raises(errors.CorruptImage, match="truncated"):
        read_frames(saved(changed(ds, PixelData=items(b""))), "x")


@pytest.mark.parametrize("syntax", FRAME_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_pixel_data_that_end_within_a_frame(syntax: uid.UID) -> None:
    whole, frames = stack_of(syntax)
    ds = parse(saved(whole))
    for count in (3, 1):
        ds.NumberOfFrames = count
        ds.PixelData = items(b"", *frames[:count])[: -len(frames[0]) // 2]
        described = describe(ds)
        if count == 1:
            with pytest.raises(errors.CorruptImage, match=r"truncated: .* ends early|truncated: they have no end"):
                decode(ds, described, "x")
            continue
        assert described.frames == 2
        for frame, expected in zip(decode(ds, described, "x"), STACK, strict=False):
            np.testing.assert_array_equal(frame.pixels, expected)
            assert any("fewer frames" in warning for warning in frame.warnings)


def test_an_offset_table_that_is_none() -> None:
    ds, frames = stack_of(uid.JPEGLSLossless)
    ds.PixelData = items(b"", *[part for frame in frames for part in halves(frame)])
    ds.add_new(0x7FE00001, "US", [1, 2, 3])
    ds.add_new(0x7FE00002, "LO", "abc")
    check_stack(ds)


@pytest.mark.parametrize("syntax", FRAME_SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_more_frames_than_announced(syntax: uid.UID) -> None:
    ds, frames = stack_of(syntax)
    check_stack(changed(ds, NumberOfFrames=2, PixelData=items(b"", *frames)), 2)


@BOUNDED
@given(
    st.lists(st.integers(0, 2**32 - 1), max_size=5), st.permutations(range(6)), st.integers(1, 6), st.integers(0, 60)
)
def test_any_pieces_give_frames_or_our_errors(table: list[int], order: list[int], frames: int, cut: int) -> None:
    ds, stored = stack_of(uid.JPEGLSLossless)
    parts = [part for frame in stored for part in halves(frame)]
    data = items(struct.pack(f"<{len(table)}I", *table), *[parts[index] for index in order])
    changed(ds, NumberOfFrames=frames, PixelData=data[: len(data) - cut])
    try:
        found = read_frames(saved(ds), "x")
    except errors.UnreadableImage:
        return
    assert 1 <= len(found) <= frames


# Zeiss


def scrambled(plain: bytes) -> bytes:
    """As Zeiss devices write JPEG 2000; the inverse of what the service does, piece by piece."""
    size = len(plain)
    start = 3 * size // 5
    found = bytearray(size)
    rest = memoryview(plain)
    head = start + 253
    places = ((start, head), (993, 1016), (276, 763), (23, 276), (1016, start), (0, 23), (763, 993), (head, size))
    for first, last in places:
        found[first:last] = rest[: last - first]
        rest = rest[last - first :]
    for at in range(0, size, 7):
        found[at] ^= 0x5A
    return bytes(found)


def jp2(image: NDArray[Any]) -> bytes:
    return encode(Image.fromarray(image), "JPEG2000", irreversible=False)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_scrambled_frames_of_zeiss_are_put_in_order(pad: int) -> None:
    plain = jp2(NOISE) + bytes(pad)
    assert len(plain) > 3000
    ds = compressed(scrambled(plain), uid.JPEG2000Lossless, NOISE, Manufacturer="Carl Zeiss Meditec")
    np.testing.assert_array_equal(read_one(ds).pixels, NOISE)
    assert unscrambled(scrambled(plain)) == plain
    assert unscrambled(plain) is None
    assert unscrambled(b"") is None


def test_other_scrambled_frames_of_zeiss_are_named() -> None:
    frame = bytes(reversed(scrambled(jp2(NOISE))))
    ds = compressed(frame, uid.JPEG2000Lossless, NOISE, Manufacturer="Carl Zeiss Meditec")
    with pytest.raises(errors.CorruptImage, match=r"Zeiss obfuscated export .* export it unencrypted"):
        read_one(ds)
    with pytest.raises(errors.CorruptImage, match="no header"):
        read_one(changed(ds, Manufacturer="Other"))
