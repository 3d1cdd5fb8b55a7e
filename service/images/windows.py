"""Rescale and VOI window: reading them, and applying a window (PS3.3 C.11.1.1.2, C.11.2.1.2, C.11.2.1.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.images.codecs import FILE_ERRORS
from service.types import Float

_BAD_WINDOW = "the VOI window in the header is not usable; the picture is shown with its full range"
_FUNCTIONS: dict[str, Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]] = {  # by VOI LUT Function (0028,1056)
    "": "LINEAR",
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
    "SAMPLED_SIGMOID": "SIGMOID",  # of some viewers
}


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in modality units (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"


def read_rescale(ds: Dataset, notes: list[str]) -> tuple[float, float] | None:
    """Read slope and intercept (0028,1053), (0028,1052).

    Args:
        ds: the data set or functional group with them.
        notes: takes what could not be used.

    Returns:
        Both; 1 and 0 stand in for one that is missing. None where they change nothing or cannot be used.
    """
    slope, intercept = _number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0)
    if slope is None or intercept is None or slope == 0:
        notes.append("the rescale in the header is not usable; stored values used")
        return None
    return None if (slope, intercept) == (1, 0) else (slope, intercept)


def read_window(ds: Dataset, notes: list[str]) -> Window | None:
    """Read the first window (0028,1050), (0028,1051).

    An unknown VOI LUT Function (0028,1056) is taken as LINEAR.

    Args:
        ds: the data set or functional group with it.
        notes: takes what could not be used.

    Returns:
        A `usable` window, None where there is none.
    """
    if "WindowCenter" not in ds and "WindowWidth" not in ds:
        return None
    centre, width = _number(ds, "WindowCenter"), _number(ds, "WindowWidth")
    if centre is not None and width is not None:
        function = _FUNCTIONS.get(_function(ds))
        if function == "LINEAR" and width < 1:  # not defined; what it tends to is (C.11.2.1.3.2)
            function = "LINEAR_EXACT"
        window = Window(centre, width, function or "LINEAR")
        if usable(window):
            if function is None:
                notes.append("the VOI LUT function in the header is unknown; the window is taken as linear")
            return window
    notes.append(_BAD_WINDOW)
    return None


def _function(ds: Dataset) -> str:
    """VOI LUT Function (0028,1056), "?" where it cannot be read."""
    try:
        value: Any = ds.get("VOILUTFunction") or ""
        return (value if isinstance(value, str) else str(value[0])).strip().upper()
    except FILE_ERRORS:
        return "?"


def _number(ds: Dataset, keyword: str, default: float | None = None) -> float | None:
    """First value of a decimal string; the default where it is absent or empty, None where it is no finite number."""
    try:
        value: Any = ds.get(keyword)
        if value is None or value == "":
            return default
        number = float(value if isinstance(value, (str, int, float)) else value[0])
    except FILE_ERRORS:
        return None
    return number if np.isfinite(number) else None


def apply_window(values: NDArray[Any], window: Window) -> Float:
    """Map a window to 0..255 and clip what lies outside it.

    The formulas of DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT) with
    an output range of 0..255; `usable` windows only.

    Args:
        values: `[H, W]` in modality units.
        window: centre, width (modality units) and function.

    Returns:
        float32 `[H, W]`, 0..255.
    """
    centre, width = window.centre, window.width
    if window.function == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    # float64, as a centre of 1e9 with a width of 1 is legal; in place, as a frame may have 64 Mi pixels
    share = values.astype(np.float64)
    share -= centre
    if window.function == "SIGMOID":
        share = 1.0 / (1.0 + np.exp(np.clip(-4.0 * share / width, -700.0, 700.0)))
    elif width == 0:
        share = (share > 0).astype(np.float64)
    else:
        share /= width
        share += 0.5
        np.clip(share, 0.0, 1.0, out=share)
    share *= 255.0
    return share.astype(np.float32)


def usable(window: Window) -> bool:
    """Tell whether the standard defines a result for the window: finite, and wide enough for its function."""
    if not np.isfinite([window.centre, window.width]).all():
        return False
    return window.width >= 1 if window.function == "LINEAR" else window.width > 0
