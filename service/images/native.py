"""Pixel data that are not compressed (PS3.5 8.1.1): cells of bits, one behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from service.images.layout import Layout
from service.images.samples import Samples

_CHUNK = 2**17  # samples that are unpacked at once, a multiple of 8: 16 bytes each on the way


def layout_there(length: int, layout: Layout) -> Layout:
    """Compare what so many bytes hold with what the header announces.

    That is at most so many frames as announced. And neither the subsampling of YBR_FULL_422 nor cells of other than
    whole bytes, where the bytes are there without these savings.
    """
    plain = layout
    if layout.photometric == "YBR_FULL_422":
        plain, layout = replace(layout, photometric="YBR_FULL"), replace(layout, planar=0)
    elif layout.allocated % 8 and layout.allocated > 1:
        plain = replace(layout, allocated=8 if layout.allocated < 8 else 16)
    if 8 * length >= _frame_bits(plain) * layout.frames:
        return plain
    return replace(layout, frames=8 * length // _frame_bits(layout))


def most_bytes(layout: Layout) -> int:
    """Count the bytes that the frames take, with no sample left out."""
    return -(-_frame_bits(replace(layout, photometric="")) * layout.frames // 8)


def native_frames(data: bytes, layout: Layout, syntax: UID, vr: str) -> Iterator[Samples]:
    """Read the frames.

    Args:
        data: the bytes of the element with the pixels.
        layout: what they hold, as `layout_there` says.
        syntax: one that is not encapsulated, for the order of bytes.
        vr: of the element with the pixels.

    Yields:
        Their cells, which may be read-only, and big endian.
    """
    if layout.allocated % 8 and layout.allocated > 1:
        data, layout = _unpacked(data, layout, big=syntax == ExplicitVRBigEndian), replace(layout, allocated=16)
        syntax = ExplicitVRLittleEndian
    options: dict[str, Any] = options_of(layout) | {"pixel_vr": vr, "view_only": True}
    decoder = get_decoder(syntax)
    for index in range(layout.frames):  # `iter_array` takes frames after the first one for others than YBR_FULL_422
        cells, said = decoder.as_array(data, index=index, raw=True, **options)
        yield Samples(cells, str(said["photometric_interpretation"]))


def options_of(layout: Layout) -> dict[str, object]:
    """Describe a layout to pydicom's decoders: cells as they are, of whole bytes or single bits."""
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": layout.frames,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": layout.planar,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": 0,
        "pixel_keyword": layout.keyword,
        "correct_unused_bits": False,
    }


def _frame_bits(layout: Layout) -> int:
    bits = layout.rows * layout.columns * layout.samples * layout.allocated
    return bits // 3 * 2 if layout.photometric == "YBR_FULL_422" else bits


def _unpacked(data: bytes, layout: Layout, *, big: bool) -> bytes:
    """Cells of other than whole bytes, which follow each other without a gap, as 16 bits each.

    The lowest bit of a cell comes first (PS3.5 annex D). Bits Allocated is 1 or a multiple of 8 today.
    """
    if big:  # in words of 16 bits
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    samples = layout.rows * layout.columns * layout.frames * layout.samples
    packed = np.frombuffer(data, np.uint8)
    cells = np.empty(samples, "<u2")
    for start in range(0, samples, _CHUNK):
        count, first = min(_CHUNK, samples - start), start * layout.allocated // 8
        last = first + -(-count * layout.allocated // 8)
        bits = np.unpackbits(packed[first:last], count=count * layout.allocated, bitorder="little")
        wide = np.zeros((count, 16), np.uint8)
        wide[:, : layout.allocated] = bits.reshape(count, layout.allocated)
        cells[start : start + count] = np.packbits(wide, bitorder="little").view("<u2")
    return cells.tobytes()
