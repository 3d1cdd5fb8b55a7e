"""Plain PNG files, decoded by image-rs: to the pixels that Pillow gives, sooner (docs/http-efficiency.md).

The decoder holds Python's lock meanwhile, so it is given small images only, and none where that lock is what limits, as
beside a GPU (docs/gpu.md); everything else, and all that it refuses, is Pillow's, which also says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from kornia_rs.io import (  # pyright: ignore[reportMissingModuleSource] - its extension holds all modules
    decode_image_png_u8,
    decode_image_png_u16,
)
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">I4sIIBBBBB")  # IHDR (ISO/IEC 15948 11.2.2) from its length on
_CHUNK = struct.Struct(">I4s")
_AROUND = 12  # bytes of a chunk beside its data
_MOST_BYTES = 2**20  # of samples; and twice as many of the file, for noise deflates to hardly more than itself
_MOST_CHUNKS = 1024
_SRGB = 0.446, 0.46  # exponents that Chromium 156 takes for that of sRGB
# Chunks that leave pixels as they are, and gAMA, which is looked at. Others may hold a palette, transparency, an
# orientation or further images.
_PLAIN = frozenset((b"IDAT", b"IEND", b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tIME"))
_DECODERS = {  # by colour type (0 is grey, 2 is RGB) and depth: what decodes it, as what, and bytes of a pixel
    (0, 8): (decode_image_png_u8, "mono", 1),
    (0, 16): (decode_image_png_u16, "mono", 2),
    (2, 8): (decode_image_png_u8, "rgb", 3),
}


@dataclass(frozen=True, slots=True)
class Head:
    """What a PNG file says of its samples: bits of each, and the exponent that they were encoded with.

    `gamma` is None where the samples are shown as they are: no gAMA, or one of about 1 / 2.2, as Chromium takes it.
    """

    depth: int
    gamma: float | None


def read_head(content: bytes) -> Head | None:
    """Read what comes before the image data; None where the file does not begin as PNG.

    gAMA (ISO/IEC 15948 11.3.3.2) gives way to sRGB, iCCP and cICP.
    """
    start = len(SIGNATURE)
    if len(content) < start + _HEAD.size:
        return None
    depth, gamma = _HEAD.unpack_from(content, start)[4], None
    for kind, at in _chunks(content):
        if kind in (b"IDAT", b"", b"sRGB", b"iCCP", b"cICP"):
            return Head(depth, gamma if kind in (b"IDAT", b"") else None)
        if kind == b"gAMA" and gamma is None:
            gamma = int.from_bytes(content[at : at + 4], "big") / 100_000
            gamma = None if gamma == 0 or _SRGB[0] <= gamma < _SRGB[1] else gamma
    return Head(depth, gamma)


def read_plain(content: bytes) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """Decode a PNG of grey or RGB samples as they are shown.

    Args:
        content: the whole file.

    Returns:
        Grey `[H, W]` uint8 or uint16, or RGB `[H, W, 3]` uint8, in the file's own range; None where the file is not
        plain, large or damaged.
    """
    if len(content) < len(SIGNATURE) + _HEAD.size or len(content) > 2 * _MOST_BYTES:
        return None
    _, kind, width, height, depth, colour, _, _, interlaced = _HEAD.unpack_from(content, len(SIGNATURE))
    if kind != b"IHDR" or interlaced or (colour, depth) not in _DECODERS:
        return None
    decode, mode, each = _DECODERS[colour, depth]
    if width * height * each > _MOST_BYTES or not _PLAIN.issuperset(kind for kind, _ in _chunks(content)):
        return None
    head = read_head(content)
    if head is None or head.gamma is not None:
        return None
    try:
        pixels = decode(content, (height, width), mode)
    except Exception:  # noqa: BLE001 - the library has no class of its own; Pillow says what is wrong
        return None
    return pixels[..., 0] if mode == "mono" else pixels


def _chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Types of the chunks behind the head, and where their data are.

    The last type is empty where the chunks do not end, or are too many.
    """
    at = len(SIGNATURE) + _HEAD.size + 4  # its sum
    for _ in range(_MOST_CHUNKS):
        if at + _CHUNK.size > len(content):
            break
        length, kind = _CHUNK.unpack_from(content, at)
        yield kind, at + _CHUNK.size
        if kind == b"IEND":
            return
        at += length + _AROUND
    yield b"", at
