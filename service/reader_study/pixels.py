"""A case's pixels as they wait in the database and travel to the reader's viewer: lossless, and nothing but pixels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.frames import quantised
from service.rendering import window
from service.types import Frame


class PixelLayout(BaseModel):
    """How to read the pixels: rows, top first, of 8 or 16 bits (low byte first). A value is pixel * slope + intercept.

    `window` holds the values that are shown black and white at first.
    """

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    bits: int = Field(description="8 or 16")
    slope: float
    intercept: float
    window: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PackedPixels:
    """Pixels in the format of zlib (RFC 1950), which HTTP calls `deflate`, with their layout."""

    layout: PixelLayout
    content: bytes


def pack(frame: Frame) -> PackedPixels:
    """Pack a frame.

    8-bit pixels stay as they are; others become 16 bits (`service.frames.quantised`), which loses nothing of what a
    scanner stores, and are shown between their percentiles 0.5 and 99.5, as in overlays.
    """
    stored, slope, intercept = quantised(frame.shown())
    height, width = stored.shape
    layout = PixelLayout(
        width=width,
        height=height,
        bits=8 * stored.itemsize,
        slope=slope,
        intercept=intercept,
        window=window(frame),
    )
    return PackedPixels(layout, zlib.compress(np.ascontiguousarray(stored).tobytes(), 6))


def unpack(packed: PackedPixels) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The stored pixels `[H, W]`, without slope and intercept."""
    layout = packed.layout
    stored = np.frombuffer(zlib.decompress(packed.content), np.uint8 if layout.bits == 8 else "<u2")
    return stored.reshape(layout.height, layout.width)
