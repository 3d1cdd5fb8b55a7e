"""Lookup tables of headers: Modality and VOI LUTs, data of palettes (PS3.3 C.7.6.3.1.5, C.11.1.1, C.11.2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from service.images.codecs import FILE_ERRORS
from service.types import Float


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A Modality or VOI LUT (DICOM PS3.3 C.11.1.1, C.11.2.1.1).

    `entries` is `[L]`; `first` is the input value of entry 0; `bits` is the depth of an entry.
    """

    entries: NDArray[np.uint16]
    first: int
    bits: int


def is_little(ds: Dataset) -> bool:
    """Tell whether words are little endian in an instance, its file meta information naming the transfer syntax."""
    return ds.file_meta.TransferSyntaxUID != ExplicitVRBigEndian


def read_descriptor(ds: Dataset, keyword: str, *, signed: bool) -> tuple[int, int, int]:
    """Read number of entries, input value of the first one and bits of an entry.

    Args:
        ds: the data set with the table; may raise any of `codecs.FILE_ERRORS`.
        keyword: of the descriptor.
        signed: whether the table's input can be negative. The first input value is then signed, whatever VR it was read
            by: Implicit VR tells none, and some writers give another.
    """
    length, first, bits = (int(value) for value in ds[keyword].value)
    return length & 0xFFFF or 1 << 16, first - (1 << 16) if signed and first >= 1 << 15 else first, bits


def octets(ds: Dataset, keyword: str, *, little: bool) -> bytes:
    """Read the data of a table in little endian, whole words."""
    element = ds[keyword]
    data: Any = element.value
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data)).astype("<u2").tobytes()
    data += bytes(len(data) % 2)
    return data if little or element.VR == "OB" else np.frombuffer(data, ">u2").astype("<u2").tobytes()


def read_entries(data: bytes, length: int, bits: int) -> tuple[NDArray[np.uint16], int]:
    """Take the entries out of a table's data.

    Args:
        data: as `octets` gives it.
        length: entries, by the descriptor.
        bits: of an entry, by the descriptor.

    Returns:
        uint16 `[L]`, at most `length`, and the bits that they have. Entries of 8 bits are two in a word, or have a word
        each as some write them: the length of the data tells.

    Raises:
        ValueError: no entries, or of impossible depth.
    """
    packed = len(data) == length + length % 2 and (bits <= 8 or length > 1)
    entries = np.frombuffer(data, np.uint8 if packed else "<u2")[:length].astype(np.uint16)
    if not len(entries) or not 1 <= bits <= 16:
        raise ValueError
    return entries, max(min(bits, 8) if packed else bits, int(entries.max()).bit_length())


def read_table(ds: Dataset, keyword: str, notes: list[str], *, little: bool, signed: bool) -> LookupTable | None:
    """Read a Modality or VOI LUT.

    Args:
        ds: the data set or functional group with the sequence; may raise any of `codecs.FILE_ERRORS`.
        keyword: of the sequence.
        notes: takes what could not be used.
        little: whether words are little endian.
        signed: see `read_descriptor`.

    Returns:
        The first LUT of the sequence that has entries, None where there is none.
    """
    items = ds.get(keyword) or ()
    for one in items:
        try:
            length, first, bits = read_descriptor(one, "LUTDescriptor", signed=signed)
            entries, bits = read_entries(octets(one, "LUTData", little=little), length, bits)
        except FILE_ERRORS:
            continue
        return LookupTable(entries, first, bits)
    if len(items):
        notes.append(f"the {keyword.removesuffix('LUTSequence')} LUT in the header is empty or damaged; ignored")
    return None


def look_up(values: NDArray[Any], table: LookupTable) -> Float:
    """Map values through a LUT; values outside its domain take its first or last entry.

    Args:
        values: `[H, W]`, any real dtype.
        table: the LUT.

    Returns:
        float32 `[H, W]`, in units of the table's entries.
    """
    index = np.clip(np.rint(values).astype(np.int64) - table.first, 0, len(table.entries) - 1)
    return table.entries[index].astype(np.float32)
