"""Encapsulated pixel data (PS3.5 A.4): which of the pieces belong to which frame.

The pieces tell before the tables do, which are an optional index: as many pieces as frames leave no doubt, and a piece
that begins as a compressed image begins a frame.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydicom.dataset import Dataset

from service.errors import SlowImage

MAX_FRAGMENTS = 2**16  # of the pixel data of a file: 2 KiB each in the largest one
JPEG_END = b"\xff\xd9"  # EOI (T.81 B.1.1.3), EOC (ISO/IEC 15444-1 A.4.4)
PADDING = b"\0\xff"  # what writers put behind a frame to make its length even; 00 is right
JP2_START = b"\0\0\0\x0cjP  "  # ISO/IEC 15444-1 I.5.1
_ITEM = b"\xfe\xff\x00\xe0"
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", JP2_START)  # JPEG, JPEG-LS; JPEG 2000 with and without boxes
_RLE_HEADER = 64  # bytes (PS3.5 G.5): the number of segments, and then where they start
_RLE_START = b"\0\0\0" + struct.pack("<I", _RLE_HEADER)  # behind the lowest byte of that number
_BETWEEN_FRAMES = re.compile(rb"\xff\xd9[\0\xff]*?(?=\xff\xd8\xff|\xff\x4f\xff\x51)")


@dataclass(frozen=True, slots=True)
class Found:
    """Where frames lie in the pixel data; `cut` says that the data end within the last one of them."""

    frames: Sequence[Sequence[slice]]
    cut: bool


def find_frames(ds: Dataset, frames: int) -> Found:
    """Find the compressed frames of an instance.

    Args:
        ds: an instance with encapsulated pixel data; may raise any of `codecs.FILE_ERRORS`.
        frames: Number of Frames.

    Returns:
        At most so many frames. Fewer where there are no more of them, and without the last one where it is cut.

    Raises:
        SlowImage: in more pieces than any encoder makes.
    """
    data: bytes = ds.PixelData
    items = _items(data)
    table, base = b"", 0
    if items and items[0].start and not _begins(data, items[0]):  # a few writers leave the table out, not only empty
        table, base = data[items[0]], items[0].stop
        del items[0]
    if len(items) != frames:
        items = [item for item in items if item.stop > item.start]
    found = _assign(ds, data, items, table, base, frames)
    cut = bool(items) and bool(found) and found[-1][-1].stop > len(data) and not _ends(data)
    if cut and len(found) > 1:
        return Found(found[:-1], cut=False)
    return Found(found, cut)


def encoded_frames(ds: Dataset, found: Found) -> Iterator[bytes]:
    """Yield the frames as they are stored, one in memory at a time."""
    data: bytes = ds.PixelData
    for pieces in found.frames:
        yield b"".join(data[piece] for piece in pieces)


def _items(data: bytes) -> list[slice]:
    """Read the values of the items; the whole data where they are no items, as some writers leave a single frame."""
    items: list[slice] = []
    at = 0
    while data[at : at + 4] == _ITEM and at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(slice(at + 8, at + 8 + length))
        at += 8 + length
        if len(items) > MAX_FRAGMENTS + 1:
            raise SlowImage(f"the pixel data may be in at most {MAX_FRAGMENTS} fragments")
    return items or [slice(0, len(data))]


def _begins(data: bytes, item: slice) -> bool:
    """Tell whether a piece begins as a compressed image does."""
    if data.startswith(_STARTS, item.start):
        return True
    head = data[item.start : min(item.stop, item.start + 8)]
    segments = head[0] if len(head) == 8 and head[1:] == _RLE_START else 0
    return 1 <= segments <= 15 and item.stop - item.start >= _RLE_HEADER


def _ends(data: bytes) -> bool:
    return data.rstrip(PADDING).endswith(JPEG_END)


def _assign(ds: Dataset, data: bytes, items: list[slice], table: bytes, base: int, frames: int) -> list[list[slice]]:
    """Find the pieces of each frame."""
    if len(items) == frames:
        return [[item] for item in items]
    heads = [number for number, item in enumerate(items) if _begins(data, item)]
    if len(heads) != frames:
        places = {item.start - 8 - base: number for number, item in enumerate(items)}
        if len(alone := _in_order(_extended_offsets(ds, items, places), places)) == frames:
            return [[items[number]] for number in alone]
        numbers = _in_order(_numbers(table, 4), places)
        heads = numbers if len(numbers) == frames else heads
    if len(items) < frames:  # several in a piece, or not all of them are there
        return [[part] for item in items for part in _split(data, item)][:frames]
    if not heads:
        return [items] if frames == 1 else [[item] for item in items][:frames]
    return [items[start:end] for start, end in pairwise([*heads, len(items)])][:frames]


def _in_order(offsets: Sequence[int], places: dict[int, int]) -> list[int]:
    """Numbers of the pieces at the offsets, none where one of them is not there or comes before another."""
    numbers = [places.get(offset, -1) for offset in offsets]
    return numbers if -1 not in numbers and numbers == sorted(set(numbers)) else []


def _extended_offsets(ds: Dataset, items: Sequence[slice], places: dict[int, int]) -> list[int]:
    """Read the Extended Offset Table (7FE0,0001), where each frame is a piece, as it must be (PS3.3 C.7.6.3.1.8)."""
    offsets = _numbers(ds.get("ExtendedOffsetTable") or b"", 8)
    lengths = _numbers(ds.get("ExtendedOffsetTableLengths") or b"", 8)
    if len(offsets) != len(lengths):
        return []
    for offset, length in zip(offsets, lengths, strict=True):
        item = items[places[offset]] if offset in places else slice(0, 0)
        if not 0 < length <= item.stop - item.start <= length + 1:
            return []
    return offsets


def _numbers(table: object, width: int) -> list[int]:
    if not isinstance(table, bytes):
        return []
    if len(table) > width * MAX_FRAGMENTS:
        raise SlowImage(f"the pixel data may be in at most {MAX_FRAGMENTS} fragments")
    whole = len(table) // width * width
    return [int.from_bytes(table[at : at + width], "little") for at in range(0, whole, width)]


def _split(data: bytes, item: slice) -> list[slice]:
    """Find the JPEG or JPEG 2000 images in a piece, one behind the other."""
    ends = [found.end() for found in _BETWEEN_FRAMES.finditer(data, item.start, min(item.stop, len(data)))]
    return [slice(start, end) for start, end in zip([item.start, *ends], [*ends, item.stop], strict=True)]
