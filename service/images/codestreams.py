"""Compressed frames before they are decoded: what their own headers say, and what they would cost."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from service.errors import CorruptImage, SlowImage
from service.images.fragments import JPEG_END, PADDING
from service.images.layout import Layout
from service.images.pixels import check_scans
from service.images.syntaxes import not_supported

MAX_SEGMENTS = 4096  # of a JPEG, before its pixels: an ICC profile has 255 at most (ICC.1 B.4)
_JPEG_START = b"\xff\xd8"  # SOI (T.81 B.1.1.3)
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 A.4, A.5)
_SOF = frozenset(b"\xff" + bytes([code]) for code in {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SOS = frozenset({b"\xff\xda"})
Kind = Literal["dct", "lossless", "jpeg-ls", "jpeg-2000"]
_KINDS: dict[int, Kind] = {0xC0: "dct", 0xC1: "dct", 0xC2: "dct", 0xC3: "lossless", 0xF7: "jpeg-ls"}  # T.81 table B.1
_STUFFED = re.compile(rb"\0+(?=\xff[\x80-\xfe])")  # JPEG-LS: behind FF, bytes from 80 on are markers (T.87 A.1)


@dataclass(frozen=True, slots=True)
class Codestream:
    """What the header of a JPEG, JPEG-LS or JPEG 2000 frame announces.

    Attributes:
        kind: of the code.
        columns, rows: of the frame.
        bits: of a sample.
        components: their identifiers (T.81 B.2.2); of JPEG 2000 from 0 on.
        signed: whether the samples have a sign, which only JPEG 2000 can tell.
    """

    kind: Kind
    columns: int
    rows: int
    bits: int
    components: tuple[int, ...]
    signed: bool


def read_codestream(frame: bytes) -> Codestream | None:
    """Read the header of a frame, None where it is none of the three.

    Args:
        frame: compressed; damaged ones may raise `struct.error` or IndexError.

    Raises:
        SlowImage: so many segments that walking over them is the work.
        UnsupportedTransferSyntax: JPEG that is arithmetic coded or hierarchical.
    """
    start = frame.find(_JPEG_2000_START, 0, 4096)  # some writers leave the JP2 boxes around it
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        count, depth = struct.unpack_from(">HB", frame, start + 40)
        bits, signed = (depth & 0x7F) + 1, depth >= 0x80
        return Codestream("jpeg-2000", right - left, bottom - top, bits, tuple(range(min(count, 5))), signed)
    at = _frame_header(frame) if frame.startswith(_JPEG_START) else None
    if at is None:
        return None
    kind = _KINDS.get(frame[at + 1])
    if kind is None:
        raise not_supported("arithmetic coded or hierarchical JPEG")
    bits, rows, columns, count = struct.unpack_from(">B2HB", frame, at + 4)
    components = tuple(frame[at + 10 : at + 10 + 3 * count : 3])
    return Codestream(kind, columns, rows, bits, components, signed=False) if len(components) == count else None


def check_frame(frame: bytes, found: Codestream, layout: Layout) -> None:
    """Refuse a frame whose own header contradicts the instance: a decoder allocates what the frame says.

    And JPEG-LS without its end: the decoder counts bits that are not there, for ten seconds. And JPEG of many scans.

    Args:
        frame: compressed.
        found: what its header announces.
        layout: what the header of the instance says.

    Raises:
        CorruptImage, SlowImage: as above.
    """
    if (found.columns, found.rows) != (layout.columns, layout.rows):
        raise CorruptImage("the compressed pixel data are of another size than the DICOM header says")
    if len(found.components) != layout.samples:
        raise CorruptImage("the compressed pixel data have other samples per pixel than the DICOM header says")
    if found.kind == "jpeg-ls" and not has_end(frame):
        raise CorruptImage("the compressed pixel data are truncated: they have no end")
    if found.kind != "jpeg-2000":
        check_scans(frame)


def has_end(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 frame ends with the marker for it, but for padding of 00 or FF."""
    return frame.rstrip(PADDING).endswith(JPEG_END)


def ends_early(frame: bytes) -> bool:
    """Whether a frame begins as one of the three, but for JPEG 2000 in boxes, and has no end."""
    return frame.startswith((_JPEG_START, _JPEG_2000_START)) and not has_end(frame)


def without_stuffing(frame: bytes) -> bytes:
    """JPEG-LS without zero bytes before its markers, which some encoders put there and CharLS does not read.

    Only for frames that cannot be decoded as they are: a zero byte can be the last one of the code.
    """
    start = frame.find(b"\xff\xda")  # headers before it may end with zero
    if start < 0:
        return frame
    start += 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
    return frame[:start] + _STUFFED.sub(b"", frame[start:])


def _frame_header(frame: bytes) -> int | None:
    """Where the header of the frame (SOF, T.81 B.2.2) is."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 10 > len(frame) or frame[at] != 0xFF:
            return None
        if frame[at : at + 2] in _SOF:
            return at
        # fill bytes before a marker have no length
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise SlowImage(f"a JPEG may have at most {MAX_SEGMENTS} segments before its pixels")
