"""Colour of DICOM instances in 8 bits: palettes (PS3.3 C.7.9), and samples of other depths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.errors import CorruptImage
from service.images.codecs import FILE_ERRORS
from service.images.lookup import LookupTable, is_little, octets, read_descriptor, read_entries
from service.types import Grey8

_COLOURS = ("Red", "Green", "Blue")
_MOST_STEPS = 2**17  # to expand one table: its descriptor can announce 2^16 entries


def rgb_of(stored: NDArray[Any], ds: Dataset, photometric: str, bits: int) -> Grey8:
    """Colour of a frame.

    Args:
        stored: `[H, W]` indices of a palette, or `[H, W, 3]` RGB.
        ds: the instance, with its palette.
        photometric: Photometric Interpretation.
        bits: Bits Stored.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        CorruptImage: no usable palette, or samples that do not fit the photometric interpretation.
    """
    if photometric == "PALETTE COLOR":
        return _through_palette(stored, ds)
    if stored.dtype.kind != "u" or stored.ndim != 3 or stored.shape[2] < 3:
        raise _misfit()
    rgb = stored[..., :3]
    return np.ascontiguousarray(rgb >> (bits - 8) if bits > 8 else rgb << (8 - bits)).astype(np.uint8)


def _misfit() -> CorruptImage:
    return CorruptImage("the DICOM pixel data do not fit the photometric interpretation")


def _through_palette(stored: NDArray[Any], ds: Dataset) -> Grey8:
    if stored.dtype.kind not in "iu" or stored.ndim != 2:
        raise _misfit()
    try:
        tables = [_read_table(ds, colour) for colour in _COLOURS]
    except FILE_ERRORS:
        raise CorruptImage("the colour palette of the DICOM header is missing or damaged") from None
    largest = max(int(table.entries.max()) for table in tables)
    shown = np.empty((*stored.shape, 3), np.uint8)
    for channel, (entries, first, bits) in enumerate((table.entries, table.first, table.bits) for table in tables):
        index = np.clip(stored.astype(np.int32) - first, 0, len(entries) - 1)  # the ends reach beyond (C.7.6.3.1.5)
        # entries of 8 bits are announced with 16 by some writers
        shown[..., channel] = (entries >> (bits - 8 if largest > 255 else 0)).astype(np.uint8)[index]
    return shown


def _read_table(ds: Dataset, colour: str) -> LookupTable:
    signed = ds.get("PixelRepresentation") == 1
    described = [f"{one}PaletteColorLookupTableDescriptor" for one in (colour, *_COLOURS)]
    length, first, bits = read_descriptor(
        ds, next((one for one in described if one in ds), described[0]), signed=signed
    )
    plain, segmented = f"{colour}PaletteColorLookupTableData", f"Segmented{colour}PaletteColorLookupTableData"
    if plain in ds:
        entries, bits = read_entries(octets(ds, plain, little=is_little(ds)), length, bits)
    else:
        entries = _expanded(octets(ds, segmented, little=is_little(ds)), wide=bits > 8)[:length]
    return LookupTable(entries, first, max(bits, 8))


def _expanded(data: bytes, *, wide: bool) -> NDArray[np.uint16]:
    """Entries of a segmented table (PS3.3 C.7.9.2), at least one."""
    expansion = _Expansion(np.frombuffer(data, "<u2" if wide else np.uint8))
    expansion.run(0, len(data))
    if not expansion.entries:
        raise ValueError
    return np.array(expansion.entries, np.uint16)


class _Expansion:
    """What segments stand for, and how much longer they may go on; raises ValueError where that is too much."""

    def __init__(self, data: NDArray[Any]) -> None:
        self._data, self._width = data, data.itemsize
        self._left = _MOST_STEPS
        self.entries: list[int] = []

    def run(self, at: int, segments: int) -> None:
        """Append what so many segments from a place on stand for; a padding byte is none."""
        while at + 1 < len(self._data) and segments > 0:
            opcode, length = self._data[at : at + 2].tolist()
            at, segments = at + 2, segments - 1
            self._left -= 1 + length
            if self._left < 0 or opcode > 2:
                raise ValueError
            if opcode == 0:
                self.entries += self._data[at : at + length].tolist()
                at += length
            elif opcode == 1:
                ends = self.entries[-1], int(self._data[at])
                self.entries += np.rint(np.linspace(*ends, length + 1)[1:]).astype(int).tolist()
                at += 1
            else:
                place = int.from_bytes(self._data[at : at + 4 // self._width].tobytes(), "little")
                self.run(place // self._width, length)
                at += 4 // self._width
