"""The grey-scale transforms of DICOM: Modality LUT, VOI LUT, window, polarity, padding (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.errors import CorruptImage
from service.images.codecs import FILE_ERRORS
from service.images.lookup import LookupTable, is_little, look_up, read_table
from service.images.windows import Window, apply_window, read_rescale, read_window
from service.types import Float, Grey8

_GAPS = "pixels without a finite value; shown as the darkest"
_PADDINGS = ("Pixel", "FloatPixel", "DoubleFloatPixel")
_NO_WINDOW = "no VOI window in the header; full range used"


@dataclass(frozen=True, slots=True)
class Grading:
    """How the stored values of one frame become display values: Modality LUT or rescale, then VOI LUT or window.

    `padding` is an inclusive range of stored values, `bits` is Bits Stored, `inverted` is MONOCHROME1.
    """

    bits: int
    inverted: bool
    padding: tuple[float, float] | None
    rescale: tuple[float, float] | None
    modality: LookupTable | None
    voi: LookupTable | None
    window: Window | None
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
        inverted = str(ds.PhotometricInterpretation).strip().upper() == "MONOCHROME1"
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
    if voi_table is None and window is None and bits > 8 and not notes:
        notes.append(_NO_WINDOW)
    return Grading(bits, inverted, padding, rescale, modality_table, voi_table, window, tuple(notes))


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
    """Bring stored values to display values.

    Args:
        stored: `[H, W]`, as decoded.
        grading: the frame's transforms.

    Returns:
        `[H, W]`, larger is brighter: float32 0..255 with a VOI LUT or window; else uint8 for plain unsigned 8-bit
        values, float32 in modality units for others (negated for MONOCHROME1). Padding takes the darkest value.
    """
    values: NDArray[Any] = stored
    shown: Grey8 | Float
    if grading.modality is not None:
        values = look_up(stored, grading.modality)
    elif grading.rescale is not None:
        values = stored.astype(np.float64)
        values *= grading.rescale[0]
        values += grading.rescale[1]
    if grading.voi is not None:
        shown = look_up(values, grading.voi)
        shown *= np.float32(255.0 / ((1 << grading.voi.bits) - 1))
    elif grading.window is not None:
        shown = apply_window(values, grading.window)
    else:
        eight_bits = values.dtype == np.uint8 and grading.bits == 8
        with np.errstate(over="ignore"):  # what is beyond float32 is found by `without_gaps`
            shown = values.astype(np.uint8) if eight_bits else values.astype(np.float32)
    if grading.inverted:
        ranged = grading.voi is not None or grading.window is not None or shown.dtype == np.uint8
        shown = (255 if ranged else 0) - shown
    return _darken_padding(shown, stored, grading.padding)


def _darken_padding(shown: Grey8 | Float, stored: NDArray[Any], padding: tuple[float, float] | None) -> Grey8 | Float:
    if padding is None:
        return shown
    padded = (stored >= padding[0]) & (stored <= padding[1])
    if padded.any() and not padded.all():
        shown[padded] = shown[~padded].min()
    return shown


def without_gaps(shown: Grey8 | Float) -> tuple[Grey8 | Float, tuple[str, ...]]:
    """Let pixels that are not finite take the darkest value, and note it: one of them would leave no contrast.

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
