"""The quick way through plain PNG files ends at the pixels that Pillow gives, or is not taken."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.errors import CorruptImage
from service.images.png import SIGNATURE, read_plain
from service.images.reading import read_frames

SHAPES = {"L": (np.uint8, (31, 47)), "I;16": (np.uint16, (31, 47)), "RGB": (np.uint8, (31, 47, 3))}


def noise(mode: str) -> NDArray[Any]:
    dtype, shape = SHAPES[mode]
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def encode(pixels: NDArray[Any] | Image.Image, **options: Any) -> bytes:
    out = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, "PNG", **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def by_pillow(content: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(BytesIO(content)))


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """The file with a further chunk behind its head."""
    behind = len(SIGNATURE) + 25
    return content[:behind] + chunk(kind, data) + content[behind:]


@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize("filtered", range(5))
def test_pixels_are_pillows_with_every_filter(mode: str, filtered: int) -> None:
    rows = noise(mode)
    data = b"".join(bytes((filtered,)) + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in rows)
    colour = 2 if rows.ndim == 3 else 0
    head = struct.pack(">IIBBBBB", 47, 31, 8 * rows.itemsize, colour, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    found = read_plain(content)
    assert found is not None
    assert found.dtype == rows.dtype
    assert np.array_equal(found, by_pillow(content))
    assert filtered or np.array_equal(found, rows)


@pytest.mark.parametrize("mode", SHAPES)
def test_frames_are_the_same_either_way(mode: str) -> None:
    content = encode(noise(mode))
    assert read_plain(content) is not None
    aside = with_chunk(content, b"tEXt", b"Software\0any")  # which changes no pixel, but may change how they are shown
    assert read_plain(aside) is None
    (quick,), (usual,) = read_frames(content, "a"), read_frames(aside, "a")
    assert quick.pixels.dtype == usual.pixels.dtype
    assert np.array_equal(quick.pixels, usual.pixels)
    assert quick.colour == usual.colour


def test_chunks_that_change_no_pixel_are_passed_over() -> None:
    content = encode(noise("L"), dpi=(72, 72))
    content = with_chunk(content, b"gAMA", struct.pack(">I", 45455))
    found = read_plain(content)
    assert found is not None
    assert np.array_equal(found, by_pillow(content))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise("L"), exif=exif)


def animated() -> bytes:
    frames = [Image.fromarray(noise("L") + step) for step in range(2)]
    return encode(frames[0], save_all=True, append_images=frames[1:])


NOT_PLAIN = {
    "palette": encode(Image.fromarray(noise("RGB")).convert("P")),
    "alpha": encode(Image.fromarray(noise("RGB")).convert("RGBA")),
    "transparent colour": encode(noise("L"), transparency=3),
    "one bit": encode(Image.fromarray(noise("L") > 99)),
    "turned": turned(),
    "animated": animated(),
    "large": encode(np.zeros((1025, 1024), np.uint8)),
    "long": encode(noise("L")) + bytes(2**21),
    "many chunks": encode(noise("L")).replace(chunk(b"IEND", b""), chunk(b"IDAT", b"") * 1024 + chunk(b"IEND", b"")),
    "no end": encode(noise("L")).removesuffix(chunk(b"IEND", b"")),
    "another head": encode(noise("L")).replace(b"IHDR", b"IHDX"),
    "nothing": SIGNATURE,
}


@pytest.mark.parametrize("content", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_everything_else_is_left_to_pillow(content: bytes) -> None:
    assert read_plain(content) is None


def test_interlaced_is_left_to_pillow() -> None:
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    data = chunk(b"IDAT", zlib.compress(b"\0\x63"))
    content = SIGNATURE + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")
    assert by_pillow(content) == 0x63
    assert read_plain(content) is None


@given(st.sampled_from(list(SHAPES)), st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_bit_of_the_pixels_is_noticed(mode: str, data: st.DataObject) -> None:
    """By the sum of its chunk (ISO/IEC 15948 5.3); Pillow looks at that of the deflated data, which has spare bits."""
    content = bytearray(encode(noise(mode)))
    begin = content.index(b"IDAT") + 4
    end = begin + struct.unpack_from(">I", content, begin - 8)[0]
    content[data.draw(st.integers(begin, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert read_plain(bytes(content)) is None
    try:
        assert np.array_equal(by_pillow(bytes(content)), noise(mode))
    except OSError:
        with pytest.raises(CorruptImage):
            read_frames(bytes(content), "a")


def mend_sums(content: bytearray) -> bytes:
    """Give every chunk the sum that belongs to it, so that what is damaged inside is looked at."""
    at = len(SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if at + length + 12 > len(content):
            break
        struct.pack_into(">I", content, at + 8 + length, zlib.crc32(content[at + 4 : at + 8 + length]))
        at += length + 12
    return bytes(content)


def with_right_sum(content: bytes) -> bytes:
    """The file with its pixels deflated anew: the sum of the deflated data, which only Pillow looks at, is right."""
    at, data = len(SIGNATURE), b""
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        data += content[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    samples = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[2:])
    head = content[: len(SIGNATURE) + 25]
    return head + chunk(b"IDAT", zlib.compress(samples)) + chunk(b"IEND", b"")


@given(st.sampled_from(list(SHAPES)), st.lists(st.tuples(st.integers(8, 10_000), st.integers(0, 255)), max_size=3))
@settings(max_examples=300, deadline=None)
def test_damage_never_gives_other_pixels_than_pillow(mode: str, damage: list[tuple[int, int]]) -> None:
    content = bytearray(encode(noise(mode) // 32))
    for at, value in damage:
        content[8 + at % (len(content) - 8)] = value
    mended = mend_sums(content)
    found = read_plain(mended)
    if found is not None:
        assert np.array_equal(found, by_pillow(with_right_sum(mended)))


def test_a_small_image_whose_data_would_inflate_to_a_gigabyte_ends_with_its_last_row() -> None:
    """Behind the gigabyte lies what is no deflated data: whoever inflates all of it refuses the file."""
    packer = zlib.compressobj(9)
    rows = packer.compress((b"\0" + bytes(1024)) * 1024) + packer.flush(zlib.Z_FULL_FLUSH)
    mebibyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    data = rows + mebibyte * 1024 + b"\xff"
    head = struct.pack(">IIBBBBB", 1024, 1024, 8, 0, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    found = read_plain(content)
    assert found is not None
    assert not found.any()


# As browsers show them


def stored(colour: int, depth: int, row: bytes, *chunks: tuple[bytes, bytes], width: int = 4) -> bytes:
    """A PNG of one row repeated eight times, with chunks between its head and its data."""
    head = struct.pack(">IIBBBBB", width, 8, depth, colour, 0, 0, 0)
    data = zlib.compress(8 * (b"\0" + row))
    parts = (chunk(b"IHDR", head), *(chunk(*each) for each in chunks), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def row_of(content: bytes) -> list[float]:
    (frame,) = read_frames(content, "a")
    assert (frame.pixels == frame.pixels[0]).all()
    return frame.pixels[0].tolist()


@pytest.mark.parametrize(
    ("depth", "row", "key", "seen"),
    [
        (1, b"\x50", 1, [0, 0, 0, 0]),  # 0 1 0 1
        (1, b"\x50", 0, [0, 255, 0, 255]),
        (2, b"\x1b", 3, [0, 85, 170, 0]),  # 0 1 2 3
        (2, b"\x1b", 1, [0, 0, 170, 255]),
        (4, b"\x0f\x5f", 15, [0, 0, 85, 0]),
        (8, b"\x05\xff\xfe\xff", 255, [5, 0, 254, 0]),
        (8, b"\x05\xff\xfe\xff", 0xFF05, [0, 255, 254, 255]),  # of which the lower bits count
        (16, struct.pack(">4H", 65535, 65534, 9, 65535), 65535, [0, 65534, 9, 0]),
    ],
)
def test_a_transparent_grey_is_black(depth: int, row: bytes, key: int, seen: list[int]) -> None:
    assert row_of(stored(0, depth, row, (b"tRNS", struct.pack(">H", key)))) == seen


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_black(depth: int) -> None:
    largest = (1 << depth) - 1
    samples = [largest] * 3 + [largest // 2] * 3
    row = np.array(samples, f">u{depth // 8}").tobytes()
    content = stored(2, depth, row, (b"tRNS", struct.pack(">3H", *[largest] * 3)), width=2)
    assert row_of(content) == [0, 127]


def test_a_palette_with_transparency_is_mixed_with_black() -> None:
    palette = (b"PLTE", bytes([10] * 3 + [200] * 3 + [255] * 3))
    assert row_of(stored(3, 8, b"\0\1\2\2", palette, (b"tRNS", b"\xff\x80\x00"))) == [10, 100, 0, 0]


GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
SHOWN = [99, 137, 188, 255]  # what Chromium 156 shows for 32, 64, 128, 255 with a gamma of 1


@pytest.mark.parametrize(
    ("colour", "depth", "row"),
    [
        (0, 8, bytes([32, 64, 128, 255])),
        (2, 8, bytes(value for value in (32, 64, 128, 255) for _ in range(3))),
        (4, 8, bytes(value for grey in (32, 64, 128, 255) for value in (grey, 255))),
    ],
)
def test_linear_samples_are_shown_as_browsers_show_them(colour: int, depth: int, row: bytes) -> None:
    assert read_plain(stored(colour, depth, row, GAMMA_1)) is None
    assert row_of(stored(colour, depth, row, GAMMA_1)) == SHOWN


def test_linear_palettes_and_wide_samples_alike() -> None:
    palette = (b"PLTE", bytes(value for value in (32, 64, 128, 255) for _ in range(3)))
    assert row_of(stored(3, 8, b"\0\1\2\3", GAMMA_1, palette)) == SHOWN
    wide = row_of(stored(0, 16, struct.pack(">4H", *(257 * value for value in (32, 64, 128, 255))), GAMMA_1))
    assert [round(value / 257) for value in wide] == SHOWN


def test_a_gamma_near_white_or_black_keeps_both_ends() -> None:
    row = bytes([0, 64, 128, 255])
    assert row_of(stored(0, 8, row, (b"gAMA", struct.pack(">I", 50_000)))) == [0, 71, 137, 255]
    assert row_of(stored(0, 8, row, (b"gAMA", struct.pack(">I", 25_000)))) == [0, 13, 71, 255]
    assert row_of(stored(0, 8, row, (b"gAMA", struct.pack(">I", 1)))) == [0, 0, 0, 255]


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"gAMA", struct.pack(">I", 45_455))],
        [(b"gAMA", struct.pack(">I", 0))],
        [GAMMA_1, (b"sRGB", b"\0")],
        [(b"sRGB", b"\0"), GAMMA_1],
        [GAMMA_1, (b"iCCP", b"x\0\0" + zlib.compress(b"profile"))],
    ],
)
def test_samples_of_srgb_stay(chunks: list[tuple[bytes, bytes]]) -> None:
    assert row_of(stored(0, 8, bytes([32, 64, 128, 255]), *chunks)) == [32, 64, 128, 255]


def test_a_transparent_grey_with_a_gamma_is_compared_as_stored() -> None:
    content = stored(0, 8, bytes([32, 64, 128, 255]), GAMMA_1, (b"tRNS", struct.pack(">H", 128)))
    assert row_of(content) == [99, 137, 0, 255]
