"""Pixel data of DICOM instances, frame by frame, with one fixed decoder for each transfer syntax."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from service.errors import CorruptImage, SlowImage, UnsupportedTransferSyntax
from service.images import decoder_process
from service.images.pixels import check_scans

# What pydicom and the decoders raise on damaged files: they unpack, index and convert untrusted bytes. Only calls
# into them are guarded with this, never our own arithmetic.
FILE_ERRORS = (
    AttributeError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    OSError,
    EOFError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
    InvalidDicomError,
    BytesLengthException,
)

_APART = "in a process of its own"
for _syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1, *decoder_process.OPENJPEG_SYNTAXES):
    get_decoder(_syntax).add_plugin(_APART, ("service.images.decoder_process", "_decode_frame"))

# One decoder each and no fall-back to another, so that a file reads the same wherever the service runs.
_PLUGINS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: _APART,
    uid.JPEGLosslessSV1: _APART,
    **dict.fromkeys(decoder_process.OPENJPEG_SYNTAXES, _APART),
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.RLELossless: "pydicom",  # the Rust decoder panics on damaged data, past every `except Exception`
}
_PATIENCE_S = 10.0  # for the frames of a file together, and one more for so many pixels:
_PIXELS_A_SECOND = 3e6
_JPEG2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 A.4, A.5)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_END = b"\xff\xd9"  # EOI (T.81 B.1.1.3)
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # T.81 B.1.1.3; F7: JPEG-LS (T.87)


@cache
def quiet() -> None:
    """Keep what the decoders say out of the log and off standard error: their texts can quote header values."""
    for name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def stored_frames(ds: Dataset, syntax: uid.UID, frames: int) -> Iterator[NDArray[Any]]:
    """Decode the pixel data, one frame in memory at a time.

    Args:
        ds: an instance with pixel data whose file meta information names `syntax`.
        syntax: transfer syntax.
        frames: Number of Frames.

    Yields:
        Stored values `[H, W]`, or `[H, W, 3]` RGB; YBR is converted.

    Raises:
        CorruptImage: truncated or damaged pixel data, or of another size than the header says.
        SlowImage: many compressed frames, each slow.
        UnsupportedTransferSyntax: no decoder.
    """
    _require_decoder(syntax)
    try:
        twelve_bit = syntax == uid.JPEGExtended12Bit and int(ds.BitsStored) > 8
        if syntax.is_encapsulated:
            _check_codestreams(ds, syntax, frames)
        if twelve_bit:
            yield from _twelve_bit_jpeg(ds, frames)
            return
        plugin = _PLUGINS.get(syntax, "")
        until = monotonic() + _PATIENCE_S + frames * int(ds.Rows) * int(ds.Columns) / _PIXELS_A_SECOND
        for stored, _ in get_decoder(syntax).iter_array(ds, indices=range(frames), decoding_plugin=plugin):
            yield stored
            if syntax.is_encapsulated and monotonic() > until:
                raise SlowImage("the compressed frames take too long to decode")
    except FILE_ERRORS:
        raise CorruptImage(f"the pixel data ({syntax.name}) are truncated or damaged") from None


def _require_decoder(syntax: uid.UID) -> None:
    if syntax not in uid.AllTransferSyntaxes:
        raise UnsupportedTransferSyntax("the transfer syntax is private or unknown")
    native = not syntax.is_encapsulated and not syntax.name.startswith("SMPTE")
    if native or (syntax in _PLUGINS and _PLUGINS[syntax] in get_decoder(syntax).available_plugins):
        return
    raise UnsupportedTransferSyntax(f"no decoder for the transfer syntax {syntax.name}")


def _check_codestreams(ds: Dataset, syntax: uid.UID, frames: int) -> None:
    """Refuse frames whose own header contradicts the instance: a decoder allocates what the frame says.

    And JPEG-LS without its end: the decoder counts bits that are not there, for ten seconds. And JPEG of many scans.
    """
    expected = (int(ds.Columns), int(ds.Rows))
    for count, frame in enumerate(generate_frames(ds.PixelData, number_of_frames=frames)):
        if count == frames:
            break
        size = _codestream_size(frame)
        if size is not None and size != expected:
            raise CorruptImage("the compressed pixel data are of another size than the DICOM header says")
        if syntax in _JPEG_LS and not frame.rstrip(b"\0").endswith(_JPEG_END):
            raise CorruptImage("the compressed pixel data have no end")
        if frame[:2] == b"\xff\xd8":
            check_scans(frame)


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 frame announces, None where it is none of them."""
    start = frame.find(_JPEG2000_START, 0, 4096)  # some writers leave the JP2 boxes around it
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return right - left, bottom - top
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _SOF_MARKERS:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return columns, rows
        # fill bytes before a marker have no length
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _twelve_bit_jpeg(ds: Dataset, frames: int) -> Iterator[NDArray[Any]]:
    """Grey JPEG Extended of 9 to 12 bits through GDCM, which pydicom's plugin for it refuses."""
    rows, columns, bits = int(ds.Rows), int(ds.Columns), int(ds.BitsStored)
    if int(ds.SamplesPerPixel) != 1 or bits > 12:
        raise UnsupportedTransferSyntax("JPEG Extended with more than 8 bits is read for grey images of up to 12 bits")
    described = decoder_process.Described(
        syntax=str(uid.JPEGExtended12Bit),
        rows=rows,
        columns=columns,
        photometric="MONOCHROME2",
        samples=1,
        planar=0,
        allocated=16,
        stored=bits,
        signed=int(ds.PixelRepresentation),
    )
    for frame in generate_frames(ds.PixelData, number_of_frames=frames):
        decoded = decoder_process.decode(frame, described)
        yield np.frombuffer(decoded, "<i2" if ds.PixelRepresentation else "<u2").reshape(rows, columns)
