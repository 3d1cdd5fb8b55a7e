"""The colours of the overlays as a Palette Color Lookup Table (PS3.3 C.7.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydicom.dataset import Dataset

if TYPE_CHECKING:
    from highdicom import PaletteColorLUTTransformation

_SIXTEEN_BITS = 257  # 255 becomes 65535


def inferno() -> PaletteColorLUTTransformation:
    """Inferno, which the PNG overlays use as well: perceptually uniform, black where there is nothing."""
    ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    return _palette(np.asarray(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0, ::-1], np.uint16))


def greys(*, inverse: bool = False) -> PaletteColorLUTTransformation:
    """Black to white, or white to black."""
    ramp = np.arange(256, dtype=np.uint16)
    return _palette((255 - ramp if inverse else ramp)[:, np.newaxis].repeat(3, axis=1))


def put_palette(ds: Dataset, low: float, high: float, *, by_range: bool) -> None:
    """Colour the stored values from `low` to `high` of a Parametric Map, which must be those that its window shows.

    highdicom offers no palette for float values; the standard does (PS3.3 C.8.32.2, C.7.6.16.2.26): Pixel Presentation
    COLOR_RANGE with the range of values that the palette spans. dciodvfy, however, reports its two numbers as errors
    whatever they are, because it takes them for text. Without `by_range` the map therefore brings the palette alone, as
    optional attributes of a Standard Extended SOP Class, and its window says what it spans.
    """
    for element in inferno():
        ds.add(element)
    if not by_range:
        del ds.PixelPresentation
        return
    ds.PixelPresentation = "COLOR_RANGE"
    ds.ICCProfile = icc_profile()
    span = Dataset()
    span.MinimumStoredValueMapped, span.MaximumStoredValueMapped = low, high
    ds.SharedFunctionalGroupsSequence[0].StoredValueColorRangeSequence = [span]


def icc_profile() -> bytes:
    """The sRGB profile, an input device profile as PS3.3 C.11.15 asks for."""
    from importlib.resources import files

    return files("highdicom").joinpath("_icc_profiles/sRGB_v4_ICC_preference.icc").read_bytes()


def _palette(rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> PaletteColorLUTTransformation:
    """Colours uint16 `[256, 3]` of 0..255, red first, as a table of 16 bits."""
    from highdicom import PaletteColorLUT, PaletteColorLUTTransformation

    red, green, blue = (
        PaletteColorLUT(0, np.ascontiguousarray(rgb[:, index] * np.uint16(_SIXTEEN_BITS)), color)
        for index, color in enumerate(("red", "green", "blue"))
    )
    return PaletteColorLUTTransformation(red, green, blue)
