"""From the bytes of a PNG, JPEG or DICOM file to grey frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import CorruptImage, TooManyPixels, UnsupportedFormat
from service.images.dicom import looks_like_dicom, read_dicom
from service.images.jpeg import unsupported_kind
from service.images.patience import Patience, PatientStream
from service.images.pixels import Budget, check_scans, check_size, flat_note, grey_of, silence
from service.images.png import SIGNATURE, read_head, read_plain
from service.images.showing import shown
from service.types import Frame

Format = Literal["png", "jpeg", "dicom"]

_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on damaged files: its readers unpack, index and inflate untrusted bytes.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def sniff(content: bytes) -> Format | None:
    """Tell the format from the first bytes.

    Args:
        content: a whole file.

    Returns:
        The format, or None where it is none of them. DICOM files without a preamble are told from their first
        element; whether the rest of the file can be read is not looked at.
    """
    if content[128:132] == b"DICM":  # first: the preamble before it may hold anything, another format's magic too
        return "dicom"
    if content.startswith(SIGNATURE):
        return "png"
    if content.startswith(_JPEG):
        return "jpeg"
    return "dicom" if looks_like_dicom(content) else None


def read_frames(content: bytes, name: str, budget: Budget | None = None, *, locked: bool = True) -> list[Frame]:
    """Decode a file.

    Args:
        content: the whole file: PNG, JPEG or DICOM.
        name: what the frames are called; the frames of a multi-frame file are `name#1`, `name#2`, ...
        budget: of all files of a request; None for any number.
        locked: whether Python's lock may be held for a millisecond, where that is sooner.

    Returns:
        At least one frame. Grey and colour images of 8 bits give uint8; 16-bit PNG and all DICOM with a rescale, a
        LUT, a window or other than 8 bits give float32. Larger is always brighter.

    Raises:
        UnsupportedFormat: neither PNG, JPEG nor DICOM.
        UnreadableImage: a more specific subclass says why.
        TooManyImages: beyond the budget.
    """
    form = sniff(content)
    if form is None:
        raise UnsupportedFormat("the file is neither PNG nor JPEG nor DICOM")
    return (
        read_dicom(content, name, budget)
        if form == "dicom"
        else [_read_raster(content, name, form, budget, locked=locked)]
    )


def _read_raster(content: bytes, name: str, form: Format, budget: Budget | None, *, locked: bool) -> Frame:
    """Decode PNG or JPEG."""
    plain = read_plain(content) if form == "png" and locked else None
    if plain is not None:
        _admit(plain.shape[1], plain.shape[0], budget)
        return _frame(name, plain)
    silence("PIL")
    kind, patience = form.upper(), Patience()
    if form == "jpeg":
        check_scans(content)
    try:
        image: Image.Image = Image.open(PatientStream(content, patience), formats=(kind,))
        _admit(*image.size, budget)
        patience.grant(image.width * image.height)
        image.load()
    except Image.DecompressionBombError:
        raise TooManyPixels from None
    except _PILLOW_ERRORS:
        unsupported = unsupported_kind(content) if form == "jpeg" else None
        if unsupported is not None:
            raise UnsupportedFormat(f"{unsupported} is not supported") from None
        raise CorruptImage(f"the {kind} file is truncated or damaged") from None
    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("the file holds several images; the first is used")
    return _frame(name, shown(_upright(image, notes), read_head(content) if form == "png" else None), notes)


def _admit(width: int, height: int, budget: Budget | None) -> None:
    check_size(width, height)
    if budget is not None:
        budget.take(1, width * height)


def _frame(name: str, pixels: NDArray[Any], notes: Sequence[str] = ()) -> Frame:
    """Of grey pixels `[H, W]`, uint8 or wider, or of colour uint8 `[H, W, 3]`."""
    colour = 0.0
    if pixels.ndim == 3:
        pixels, colour = grey_of(pixels)
    elif pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    return Frame(name, pixels, colour, warnings=(*notes, *flat_note(pixels)))


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn the image as its EXIF orientation says."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _PILLOW_ERRORS:
        notes.append("the EXIF block is damaged; its orientation is ignored")
        return image
    step = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if step is None else image.transpose(step)
