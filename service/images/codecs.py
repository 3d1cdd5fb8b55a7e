"""Pixel data of DICOM instances, frame by frame, with one fixed decoder for each transfer syntax."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from service.errors import CorruptImage, SlowImage, UnsupportedTransferSyntax
from service.images import decoder_process
from service.images.codestreams import check_codestreams, encoded_frames
from service.images.patience import Patience

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
for _syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1, uid.RLELossless, *decoder_process.OPENJPEG_SYNTAXES):
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
_LARGE_RLE = 2**20  # bytes of a frame; what is smaller is not worth the way to another process


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
        SlowImage: a frame, or all of them together, take too long.
        UnsupportedTransferSyntax: no decoder.
    """
    _require_decoder(syntax)
    try:
        patience = Patience(frames * int(ds.Rows) * int(ds.Columns))
        longest = check_codestreams(ds, syntax, frames, patience) if syntax.is_encapsulated else 0
        for stored in _decoded(ds, syntax, frames, longest):
            yield stored
            patience.check()
    except FILE_ERRORS as error:
        if decoder_process.TOO_LONG in str(error):  # pydicom quotes what its plug-in says
            raise SlowImage("a compressed frame takes too long to decode") from None
        raise CorruptImage(f"the pixel data ({syntax.name}) are truncated or damaged") from None


def _decoded(ds: Dataset, syntax: uid.UID, frames: int, longest: int) -> Iterator[NDArray[Any]]:
    """Frame by frame; the longest of those that are compressed has so many bytes."""
    if syntax == uid.JPEGExtended12Bit and int(ds.BitsStored) > 8:
        return _twelve_bit_jpeg(ds, frames)
    plugin = _PLUGINS.get(syntax, "")
    if syntax == uid.RLELossless and longest > _LARGE_RLE:  # of few bytes it makes 64 times as many, or works for none
        plugin = _APART
    found = get_decoder(syntax).iter_array(ds, indices=range(frames), decoding_plugin=plugin)
    return (stored for stored, _ in found)


def _require_decoder(syntax: uid.UID) -> None:
    if syntax not in uid.AllTransferSyntaxes:
        raise UnsupportedTransferSyntax("the transfer syntax is private or unknown")
    native = not syntax.is_encapsulated and not syntax.name.startswith("SMPTE")
    if native or (syntax in _PLUGINS and _PLUGINS[syntax] in get_decoder(syntax).available_plugins):
        return
    raise UnsupportedTransferSyntax(f"no decoder for the transfer syntax {syntax.name}")


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
    for frame in encoded_frames(ds, frames):
        decoded = decoder_process.decode(frame, described)
        yield np.frombuffer(decoded, "<i2" if ds.PixelRepresentation else "<u2").reshape(rows, columns)
