"""Pixel data of DICOM instances, frame by frame."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from service.errors import CorruptImage, SlowImage
from service.images import decoder_process
from service.images.codestreams import ends_early
from service.images.decoding import decode_frame
from service.images.fragments import encoded_frames, find_frames
from service.images.layout import Layout
from service.images.native import layout_there, native_frames
from service.images.patience import Patience
from service.images.samples import Samples, stored_values
from service.images.syntaxes import CODESTREAMS, ENCAPSULATED, name_of

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


@cache
def quiet() -> None:
    """Keep what the decoders say out of the log and off standard error: their texts can quote header values."""
    for name in ("pydicom", "openjpeg"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def count_frames(ds: Dataset, layout: Layout) -> int:
    """Frames that the pixel data hold, at most those that are announced; one that is cut counts where it is the only.

    Args:
        ds: an instance; may raise any of `FILE_ERRORS`.
        layout: how its samples are stored.

    Raises:
        CorruptImage: not even one.
        SlowImage: in more pieces than any encoder makes.
    """
    if layout.syntax in ENCAPSULATED:
        there = len(find_frames(ds, layout.frames).frames)
    else:
        there = layout_there(len(ds[layout.keyword].value), layout).frames
    if not there:
        raise CorruptImage("the pixel data are truncated: they end before the first frame does")
    return there


def stored_frames(ds: Dataset, layout: Layout) -> Iterator[NDArray[Any]]:
    """Decode the pixel data, one frame in memory at a time.

    Args:
        ds: an instance with pixel data.
        layout: how its samples are stored; of the frames that it announces, those that are there are decoded.

    Yields:
        Stored values `[H, W]` as Bits Stored, High Bit and Pixel Representation say: shifted to the lowest bit, without
        unused bits, the sign extended. Or of colour uint8 `[H, W, 3]` RGB; YBR is converted, other depths scaled.

    Raises:
        CorruptImage: truncated or damaged pixel data, or of another size than the header says.
        SlowImage: a frame, or all of them together, take too long.
        UnsupportedTransferSyntax: a kind of compression, sound or not, that there is no decoder for.
    """
    try:
        patience = Patience(layout.rows * layout.columns * layout.frames)
        found = _encoded(ds, layout, patience) if layout.syntax in ENCAPSULATED else _native(ds, layout)
        for samples in found:
            yield stored_values(samples, layout)
            patience.check()
    except FILE_ERRORS:
        raise CorruptImage(f"the pixel data ({name_of(layout.syntax)}) are truncated or damaged") from None


def _native(ds: Dataset, layout: Layout) -> Iterator[Samples]:
    element = ds[layout.keyword]
    there = layout_there(len(element.value), layout)
    return native_frames(element.value, there, layout.syntax, element.VR)


def _encoded(ds: Dataset, layout: Layout, patience: Patience) -> Iterator[Samples]:
    found = find_frames(ds, layout.frames)
    zeiss = str(ds.get("Manufacturer")).upper().startswith("CARL ZEISS")
    for frame in encoded_frames(ds, found):
        patience.check()
        try:
            samples = decode_frame(frame, layout, patience, zeiss=zeiss)
        except FILE_ERRORS as error:
            if decoder_process.TOO_LONG in str(error):
                raise SlowImage("a compressed frame takes too long to decode") from None
            if found.cut or (layout.syntax in CODESTREAMS and ends_early(frame)):
                raise CorruptImage("the pixel data are truncated: a compressed frame ends early") from None
            raise
        yield samples
