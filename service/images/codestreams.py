"""Encapsulated pixel data (PS3.5 A.4) before they are decoded: what their own bytes say and what they would cost."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from service.errors import CorruptImage, SlowImage
from service.images.patience import Patience, PatientStream
from service.images.pixels import check_scans

MAX_FRAGMENTS = 2**16  # of the pixel data of a file: 2 KiB each in the largest one
MAX_SEGMENTS = 4096  # of a JPEG, before its pixels: an ICC profile has 255 at most (ICC.1 B.4)
_LARGE = 2**20  # bytes: fewer do not keep a parser in Python for long
_ITEM = b"\xfe\xff\x00\xe0"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"  # SOI, EOI (T.81 B.1.1.3)
_JPEG2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 A.4, A.5)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_BY_PILLOW = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_SOF = frozenset(b"\xff" + bytes([code]) for code in {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # F7: JPEG-LS
_SOS = frozenset({b"\xff\xda"})


def encoded_frames(ds: Dataset, frames: int) -> Iterator[bytes]:
    """The frames as they are stored, at most so many; where they are is read as pydicom's decoders read it.

    Raises:
        SlowImage: in more pieces than any encoder makes.
    """
    data: bytes = ds.PixelData
    if len(data) > _LARGE and max(data.count(_ITEM), int.from_bytes(data[4:8], "little") >> 3) > MAX_FRAGMENTS:
        raise SlowImage(f"the pixel data may be in at most {MAX_FRAGMENTS} fragments")
    offsets: bytes | None = ds.get("ExtendedOffsetTable")
    table = (offsets, bytes(ds.ExtendedOffsetTableLengths)) if offsets else None
    found = generate_frames(data, number_of_frames=frames, extended_offsets=table)
    for _, frame in zip(range(frames), found, strict=False):
        yield frame


def check_codestreams(ds: Dataset, syntax: uid.UID, frames: int, patience: Patience) -> int:
    """Refuse frames whose own header contradicts the instance: a decoder allocates what the frame says.

    And JPEG-LS without its end: the decoder counts bits that are not there, for ten seconds. And JPEG of many scans, or
    of so many segments that walking over them is the work.

    Args:
        ds: an instance with encapsulated pixel data; may raise any of `codecs.FILE_ERRORS`.
        syntax: its transfer syntax.
        frames: Number of Frames.
        patience: of the file.

    Returns:
        Bytes of the longest frame.

    Raises:
        CorruptImage, SlowImage: as above.
    """
    expected, longest = (int(ds.Columns), int(ds.Rows)), 0
    for frame in encoded_frames(ds, frames):
        patience.check()
        longest = max(longest, len(frame))
        size = _codestream_size(frame)
        if size is not None and size != expected:
            raise CorruptImage("the compressed pixel data are of another size than the DICOM header says")
        if syntax in _JPEG_LS and not frame.rstrip(b"\0").endswith(_JPEG_END):
            raise CorruptImage("the compressed pixel data have no end")
        if frame.startswith(_JPEG_START):
            _check_segments(frame)
            check_scans(frame)
            if syntax in _BY_PILLOW and len(frame) > _LARGE:
                Image.open(PatientStream(frame, patience), formats=("JPEG",))  # its header; the decoder reads it again
    return longest


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 frame announces, None where it is none of them."""
    start = frame.find(_JPEG2000_START, 0, 4096)  # some writers leave the JP2 boxes around it
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return right - left, bottom - top
    if not frame.startswith(_JPEG_START):
        return None
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 9 > len(frame) or frame[at] != 0xFF:
            return None
        if frame[at : at + 2] in _SOF:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return columns, rows
        # fill bytes before a marker have no length
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise _too_many_segments()


def _check_segments(frame: bytes) -> None:
    """Walk as pydicom does, which takes any bytes for a segment, to the frame's header and of JPEG-LS to its scan."""
    at = _segment(frame, 2, _SOF)
    if frame[at : at + 2] == b"\xff\xf7" and at + 9 < len(frame):
        _segment(frame, at + 10 + 3 * frame[at + 9], _SOS)


def _segment(frame: bytes, at: int, markers: frozenset[bytes]) -> int:
    """Where the first segment with one of the markers is, or the end."""
    for _ in range(MAX_SEGMENTS):
        if frame[at : at + 2] in markers or at + 4 > len(frame):
            return at
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise _too_many_segments()


def _too_many_segments() -> SlowImage:
    return SlowImage(f"a JPEG may have at most {MAX_SEGMENTS} segments before its pixels")
