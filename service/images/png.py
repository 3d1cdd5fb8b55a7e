"""Plain PNG files, decoded by image-rs: to the pixels that Pillow gives, sooner (docs/http-efficiency.md).

The decoder holds Python's lock meanwhile, so it is given small images only, and none where that lock is what limits, as
beside a GPU (docs/gpu.md); everything else, and all that it refuses, is Pillow's, which also says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

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
# Chunks that leave pixels as they are. Others may hold a palette, transparency, an orientation or further images.
_PLAIN = frozenset((b"IDAT", b"IEND", b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tIME"))
_DECODERS = {  # by colour type (0 is grey, 2 is RGB) and depth: what decodes it, as what, and bytes of a pixel
    (0, 8): (decode_image_png_u8, "mono", 1),
    (0, 16): (decode_image_png_u16, "mono", 2),
    (2, 8): (decode_image_png_u8, "rgb", 3),
}


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
    if width * height * each > _MOST_BYTES or not _PLAIN.issuperset(_chunks(content)):
        return None
    try:
        pixels = decode(content, (height, width), mode)
    except Exception:  # noqa: BLE001 - the library has no class of its own; Pillow says what is wrong
        return None
    return pixels[..., 0] if mode == "mono" else pixels


def _chunks(content: bytes) -> Iterator[bytes]:
    """Types of the chunks behind the head; an empty one where they do not end, or are too many."""
    at = len(SIGNATURE) + _HEAD.size + 4  # its sum
    for _ in range(_MOST_CHUNKS):
        if at + _CHUNK.size > len(content):
            break
        length, kind = _CHUNK.unpack_from(content, at)
        yield kind
        if kind == b"IEND":
            return
        at += length + _AROUND
    yield b""
