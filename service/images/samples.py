"""From the cells that a decoder gives to stored values (PS3.5 8.1.1), the same for every transfer syntax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.processing import convert_color_space

from service.images.layout import Layout
from service.types import Grey8


@dataclass(frozen=True, slots=True)
class Samples:
    """A frame as its decoder gives it.

    Attributes:
        cells: `[H, W]` or `[H, W, samples]`, unsigned or floats.
        photometric: as which they are to be read.
        bits: of a cell of the compressed frame; None where the cells are those that the header describes.
        signed: whether the compressed frame says that its samples have a sign.
        exact: whether none of these bits is unused, as in lossy JPEG.
    """

    cells: NDArray[Any]
    photometric: str
    bits: int | None = None
    signed: bool = False
    exact: bool = False


def stored_values(found: Samples, layout: Layout) -> NDArray[Any]:
    """Take the samples out of their cells.

    Args:
        found: a decoded frame.
        layout: what the header says.

    Returns:
        `[H, W]`: from the lowest bit on, without the unused bits, the sign at High Bit extended. Or of colour uint8
        `[H, W, 3]` RGB.
    """
    if found.cells.dtype.kind == "f":
        return found.cells.copy()
    stored, high, signed = _depth(found, layout)
    values = _extracted(found.cells, stored, high, signed=signed)
    if not (layout.colour and values.ndim == 3):
        return values if values.flags.writeable else values.copy()
    rgb = _in_eight_bits(values, stored)
    if found.photometric in ("YBR_FULL", "YBR_FULL_422"):
        return convert_color_space(rgb, "YBR_FULL", "RGB")
    return rgb


def _in_eight_bits(values: NDArray[Any], bits: int) -> Grey8:
    """Unsigned values of so many bits as 8 bits, contiguous."""
    return np.ascontiguousarray((values >> (bits - 8)) if bits > 8 else (values << (8 - bits)), np.uint8)


def _depth(found: Samples, layout: Layout) -> tuple[int, int, bool]:
    """Find bits, highest bit and sign of a sample; a compressed frame knows better than the header."""
    stored, high, signed = layout.stored, layout.high, layout.signed
    if found.bits is None:
        return stored, high, signed
    if found.bits > layout.allocated or (found.exact and found.bits > stored):
        return found.bits, found.bits - 1, signed
    if found.bits < stored:  # the sign that the header places above these bits is 0
        return found.bits, found.bits - 1, signed and found.signed
    return stored, min(high, found.bits - 1), signed


def _extracted(cells: NDArray[Any], stored: int, high: int, *, signed: bool) -> NDArray[Any]:
    width = 8 * cells.dtype.itemsize
    if signed:
        cells = cells.view(cells.dtype.str.replace("u", "i"))
    up, down = width - 1 - high, width - stored
    if not down:
        return cells
    values = np.left_shift(cells, up)
    return np.right_shift(values, down, out=values)
