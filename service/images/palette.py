"""Colour of DICOM instances in 8 bits: palettes (PS3.3 C.7.9), and samples of other depths."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian

from service.errors import CorruptImage
from service.images.codecs import FILE_ERRORS
from service.types import Grey8

_MOST_ENTRIES = 2**17  # and steps, to expand one table: its descriptor can announce 2^16 entries
_INDIRECT_COST = 64  # steps: pydicom copies the table for it
_SEGMENTED = tuple(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha"))


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
    rgb = stored
    if photometric == "PALETTE COLOR":
        try:
            _check_segments(ds)
            rgb = apply_color_lut(stored, ds)
        except FILE_ERRORS:
            raise CorruptImage("the colour palette of the DICOM header is missing or damaged") from None
        bits = 8 * rgb.dtype.itemsize
    if rgb.dtype.kind != "u" or rgb.ndim != 3 or rgb.shape[2] < 3:
        raise CorruptImage("the DICOM pixel data do not fit the photometric interpretation")
    rgb = rgb[..., :3]
    return np.ascontiguousarray(rgb >> (bits - 8) if bits > 8 else rgb << (8 - bits)).astype(np.uint8)


def _check_segments(ds: Dataset) -> None:
    """Refuse segmented tables (PS3.3 C.7.9.2) whose segments refer to others that refer to others, without end."""
    for keyword in _SEGMENTED:
        data: bytes = ds.get(keyword) or b""
        if len(data) > 2 * _MOST_ENTRIES:
            raise ValueError
        if data:
            big = ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
            wide = ds.RedPaletteColorLookupTableDescriptor[2] != 8
            width = 2 if wide else 1
            entries = struct.unpack(f"{'>' if big else '<'}{len(data) // width}{'H' if wide else 'B'}", data)
            _Expansion(entries, wide=wide, big=big).count(0, len(entries))


class _Expansion:
    """Counts what pydicom would do to expand a table; raises ValueError where that is too much."""

    def __init__(self, entries: tuple[int, ...], *, wide: bool, big: bool) -> None:
        self._entries, self._wide, self._big = entries, wide, big
        self._left = _MOST_ENTRIES

    def count(self, at: int, segments: int) -> None:
        """Walk over so many segments from an entry on."""
        while at + 1 < len(self._entries) and segments > 0:
            opcode, length = self._entries[at : at + 2]
            at, segments = at + 2, segments - 1
            self._left -= 1 + (_INDIRECT_COST if opcode == 2 else length)
            if self._left < 0 or opcode > 2:
                raise ValueError
            if opcode == 2:
                place = self._entries[at : at + (2 if self._wide else 4)]
                self.count(self._address(place), length)
            at += (length, 1, 2 if self._wide else 4)[opcode]

    def _address(self, place: tuple[int, ...]) -> int:
        if self._wide:
            return place[1] << 16 | place[0]
        return int.from_bytes(bytes(place[i] for i in ((2, 3, 0, 1) if self._big else (3, 2, 1, 0))), "big")
