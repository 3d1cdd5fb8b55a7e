"""The grey-scale transforms of DICOM: Modality LUT, VOI LUT, window, polarity, padding (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.errors import CorruptImage
from service.images.codecs import FILE_ERRORS
from service.images.layout import photometric_of
from service.images.lookup import LookupTable, is_little, look_up, read_table
from service.images.windows import Window, apply_window, read_rescale, read_window
from service.types import Float, Grey8

_GAPS = "pixels without a finite value; shown as the darkest"
_PADDINGS = ("Pixel", "FloatPixel", "DoubleFloatPixel")


@dataclass(frozen=True, slots=True)
class VoiDisplay:
    """How people see the pixels of a frame: VOI LUT, or else window, of values that MONOCHROME1 has inverted."""

    window: Window | None
    table: LookupTable | None
    inverted: bool

    def __call__(self, pixels: Grey8 | Float) -> Float:
        """Map pixels as `grade` gives them, `[H, W]`, to float32 0..255, larger is brighter."""
        values = invert(pixels) if self.inverted else pixels
        if self.table is not None:
            shown = look_up(values, self.table) * np.float32(255.0 / ((1 << self.table.bits) - 1))
        else:
            assert self.window is not None  # noqa: S101 - one of both, as `Grading.display` makes it
            shown = apply_window(values, self.window)
        return np.float32(255) - shown if self.inverted else shown


@dataclass(frozen=True, slots=True)
class Grading:
    """What the header says of the stored values of one frame.

    Attributes:
        bits: Bits Stored (0028,0101).
        inverted: MONOCHROME1.
        padding: inclusive range of stored values that lie outside of the picture, or None.
        rescale: slope and intercept, or None.
        modality: Modality LUT, which stands before the rescale, or None.
        display: VOI LUT or window, or None.
        notes: what could not be used.
    """

    bits: int
    inverted: bool
    padding: tuple[float, float] | None
    rescale: tuple[float, float] | None
    modality: LookupTable | None
    display: VoiDisplay | None
    notes: tuple[str, ...]


def read_grading(ds: Dataset, index: int) -> Grading:
    """Read the transforms of one frame, from its functional groups where there are any (PS3.3 C.7.6.16.2.9, .10).

    Args:
        ds: a grey instance, its file meta information naming the transfer syntax.
        index: the frame, from 0.

    Returns:
        The transforms. What is missing or not usable is left out and noted in `notes`.

    Raises:
        CorruptImage: a lookup table or a value that describes the pixels is damaged.
    """
    notes: list[str] = []
    try:
        bits = int(ds.get("BitsStored") or ds.get("BitsAllocated") or 32)
        inverted = photometric_of(ds) == "MONOCHROME1"
        padding = _padding(ds)
        little = is_little(ds)
        values = functional_group(ds, index, "PixelValueTransformationSequence")
        voi = functional_group(ds, index, "FrameVOILUTSequence")
        signed = ds.get("PixelRepresentation") == 1
        modality_table = read_table(values, "ModalityLUTSequence", notes, little=little, signed=signed)
        rescale = None if modality_table else read_rescale(values, notes)
        signed = modality_table is None and (signed or (rescale is not None and min(rescale) < 0))
        voi_table = read_table(voi, "VOILUTSequence", notes, little=little, signed=signed)
    except FILE_ERRORS:
        raise CorruptImage("a lookup table or pixel description of the DICOM header is damaged") from None
    window = None if voi_table else read_window(voi, notes)
    display = None if voi_table is None and window is None else VoiDisplay(window, voi_table, inverted)
    return Grading(bits, inverted, padding, rescale, modality_table, display, tuple(notes))


def functional_group(ds: Dataset, index: int, keyword: str) -> Dataset:
    """The item of a functional group macro for a frame (PS3.3 C.7.6.16).

    Args:
        ds: an instance; its elements may raise any of `codecs.FILE_ERRORS` when they are read.
        index: the frame, from 0.
        keyword: of the macro's sequence.

    Returns:
        The frame's own item, the shared one, or the data set itself.
    """
    groups: Any = ds.get("PerFrameFunctionalGroupsSequence") or ()
    shared: Any = ds.get("SharedFunctionalGroupsSequence") or ()
    for group in (*groups[index : index + 1], *shared[:1]):
        if items := group.get(keyword):
            return items[0]
    return ds


def _padding(ds: Dataset) -> tuple[float, float] | None:
    """Pixel Padding Value and Range Limit, of integers (0028,0120), (0028,0121) or floats (0028,0122) to (0028,0125).

    As stored values, lowest and highest (PS3.3 C.7.5.1.1.2, C.7.6.24).
    """
    for kind in _PADDINGS:
        value, limit = ds.get(f"{kind}PaddingValue"), ds.get(f"{kind}PaddingRangeLimit")
        if isinstance(value, (int, float)):
            break
    else:
        return None
    ends = [value, limit if isinstance(limit, (int, float)) else value]
    if ds.get("PixelRepresentation") == 1:  # some writers give the value unsigned
        bits = int(ds.BitsAllocated)
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    return min(ends), max(ends)


def grade(stored: NDArray[Any], grading: Grading) -> Grey8 | Float:
    """Bring stored values to modality values (PS3.3 C.11.1).

    Args:
        stored: `[H, W]`, as decoded.
        grading: what the header says of them.

    Returns:
        `[H, W]`, larger is brighter: uint8 for unsigned 8-bit values without rescale or LUT, else float32 in modality
        units. Those of MONOCHROME1 are inverted, see `invert`.
    """
    values: NDArray[Any] = stored
    if grading.modality is not None:
        values = look_up(stored, grading.modality)
    elif grading.rescale is not None:
        values = stored.astype(np.float64)
        values *= grading.rescale[0]
        values += grading.rescale[1]
    eight_bits = values.dtype == np.uint8 and grading.bits == 8
    with np.errstate(over="ignore"):  # what is beyond float32 is found by `without_gaps`
        pixels: Grey8 | Float = values.astype(np.uint8) if eight_bits else values.astype(np.float32)
    return invert(pixels) if grading.inverted else pixels


def invert(pixels: Grey8 | Float) -> Grey8 | Float:
    """Reverse the order of values `[H, W]`: 255 minus uint8, float32 negated. Twice is the identity."""
    return 255 - pixels if pixels.dtype == np.uint8 else -pixels


def padded(stored: NDArray[Any], grading: Grading) -> NDArray[np.bool_] | None:
    """Find the pixels that lie outside of the picture (PS3.3 C.7.5.1.1.2).

    Args:
        stored: `[H, W]`, as decoded.
        grading: what the header says of them.

    Returns:
        bool `[H, W]`; None where there are none, or nothing else.
    """
    if grading.padding is None:
        return None
    found = (stored >= grading.padding[0]) & (stored <= grading.padding[1])
    return found if found.any() and not found.all() else None


def without_gaps(shown: Grey8 | Float) -> tuple[Grey8 | Float, tuple[str, ...]]:
    """Let pixels that are not finite take the darkest value, and note it.

    Args:
        shown: uint8 or float32 `[H, W]`, as `grade` gives it; of Float Pixel Data (7FE0,0008) or of a large rescale
            some may be no numbers.

    Returns:
        The same without them, and what a reader must know.

    Raises:
        CorruptImage: no pixel is finite.
    """
    if shown.dtype == np.uint8:
        return shown, ()
    finite = np.isfinite(shown)
    if finite.all():
        return shown, ()
    if not finite.any():
        raise CorruptImage("no pixel of the DICOM image has a finite value")
    return np.where(finite, shown, shown[finite].min()), (_GAPS,)
