"""From a frame to model input. The one definition that training and serving share."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.types import Float, Frame, Grey8, Item, PreprocessingSpec, Region

_DETECTION_SIDE = 256  # the field of view is found on a copy whose longer side is at most this
_SATURATED = 250  # of 255: the white that an OCT device fills registered frames with
_FILL_BLEED = 5  # pixels of JPEG ringing around that fill
_LEVELS = 2**16  # that are counted
_EXACT = 2**23  # up to which float32 holds whole numbers, and what is 16 bits above


def prepare(frame: Frame, spec: PreprocessingSpec) -> Item:
    """Crop, window, pad and resample one frame.

    Args:
        frame: pixels uint8 or float32 `[H, W]`.
        spec: the model's preprocessing.

    Returns:
        An item with pixels uint8 `[size, size]` and the region, in pixels of the frame, that they cover.
        Aspect is preserved; what lies outside the frame is black.
    """
    grey = _to_grey8(frame.pixels)
    valid: NDArray[np.bool_] | None = None
    if spec.field_of_view == "scan":
        valid = ~registration_fill(grey)
        box = _bounding_box(valid)
    elif spec.field_of_view == "head":
        box = _head_box(grey)
    else:
        box = (0, 0, grey.shape[1], grey.shape[0])
    windowed = _window(frame.pixels, valid, box, spec.window)
    return _resample(windowed, box, spec)


def prepare_mask(mask: Grey8, region: Region, size: int) -> Grey8:
    """Bring a mask of the source image onto the model input's grid.

    Args:
        mask: uint8 `[H, W]`, non-zero is inside.
        region: the region that `prepare` returned for the image that the mask belongs to.
        size: side of the model input in pixels.

    Returns:
        uint8 `[size, size]`, 0..255: the covered share of every pixel.
    """
    return _warp(np.where(mask > 0, np.uint8(255), np.uint8(0)), region, size)


def registration_fill(grey: Grey8) -> NDArray[np.bool_]:
    """Where an OCT device filled the frame with white after registration.

    Args:
        grey: uint8 `[H, W]`.

    Returns:
        bool `[H, W]`: saturated areas that touch the border, grown by the width of their JPEG ringing.
    """
    _, labels = cv2.connectedComponents((grey >= _SATURATED).astype(np.uint8), connectivity=4)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    counts = np.bincount(border, minlength=int(labels.max()) + 1)
    touching = np.flatnonzero(counts >= 8)  # a few bright pixels at the border are tissue, not fill
    fill = np.isin(labels, touching[touching > 0]).astype(np.uint8)
    grown = cv2.dilate(fill, np.ones((_FILL_BLEED, _FILL_BLEED), np.uint8))
    return grown.astype(np.bool_)


def _to_grey8(pixels: Grey8 | Float) -> Grey8:
    """An 8-bit copy for finding the field of view only."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    low, high = _percentiles(pixels, None, (0.5, 99.8))
    scaled = np.subtract(pixels, low)
    scaled *= 255.0 / max(float(high - low), 1e-6)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, width, height of the true pixels; the whole frame where there are none."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return 0, 0, mask.shape[1], mask.shape[0]
    return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)


def _head_box(grey: Grey8) -> tuple[int, int, int, int]:
    """Bounding box of the largest bright object: drops air, burnt-in text, rulers and thin frames."""
    height, width = grey.shape
    scale = min(1.0, _DETECTION_SIDE / max(height, width))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    threshold, _ = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = (small > max(0.4 * threshold, 8)).astype(np.uint8)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(opened, connectivity=8, ltype=cv2.CV_16U)
    if count < 2:
        return 0, 0, width, height
    # OpenCV's own statistics cost more than the labels do
    areas = cv2.calcHist([labels], [0], None, [count], [0, count])[1:]
    x, y, w, h = cv2.boundingRect((labels == 1 + np.argmax(areas)).astype(np.uint8))
    if w * h < 0.1 * small.size:  # nothing in it looks like a head
        return 0, 0, width, height
    sx, sy = width / small.shape[1], height / small.shape[0]
    left, top = int(x * sx), int(y * sy)
    return left, top, min(width, round((x + w) * sx)) - left, min(height, round((y + h) * sy)) - top


def _window(
    pixels: Grey8 | Float,
    valid: NDArray[np.bool_] | None,
    box: tuple[int, int, int, int],
    window: tuple[float, float],
) -> Grey8:
    """Map the two percentiles of the field of view to 0 and 255; pixels that are not valid become black."""
    x, y, w, h = box
    field = pixels[y : y + h, x : x + w]
    low, high = _percentiles(field, None if valid is None else valid[y : y + h, x : x + w], window)
    if pixels.dtype == np.uint8:  # there are 256 levels: look them up
        levels = _stretch(np.arange(256, dtype=np.float32), low, high)
        windowed = np.asarray(cv2.LUT(pixels, levels), np.uint8)
    else:
        windowed = _stretch(pixels.astype(np.float32, copy=False), low, high)
    return windowed if valid is None else windowed * valid


def _stretch(pixels: Float, low: float, high: float) -> Grey8:
    scaled = np.subtract(pixels, np.float32(low))
    scaled *= np.float32(255.0 / max(high - low, 1e-6))
    np.clip(scaled, 0, 255, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _percentiles(
    pixels: Grey8 | Float, inside: NDArray[np.bool_] | None, window: tuple[float, float]
) -> tuple[float, float]:
    """Percentiles of the pixels `inside`, as `numpy.percentile` gives them, to the last bit; 0 and 1 of none."""
    counted = _counted(pixels, inside)
    if counted is not None:
        lowest, below = counted
        total = int(below[-1])
        low, high = (_level_at(lowest, below, share / 100 * (total - 1)) for share in window)
        return low, high
    chosen = pixels if inside is None else pixels[inside]
    if not chosen.size:
        return 0.0, 1.0
    low, high = np.percentile(chosen, window)
    return float(low), float(high)


def _counted(pixels: Grey8 | Float, inside: NDArray[np.bool_] | None) -> tuple[int, NDArray[np.int64]] | None:
    """A level, and how many pixels are no brighter than it and each that follows: sooner than to sort them.

    None where they are no whole numbers within 16 bits, which detectors count in, or none, or more than OpenCV counts.
    """
    if not pixels.size or pixels.size >= 2**24:  # in float32
        return None
    lowest, levels, of = 0, 256, np.ascontiguousarray(pixels)
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low.is_integer() and abs(low) < _EXACT and high - low < _LEVELS):  # not-a-number neither
            return None
        lowest, levels = int(low), int(high - low) + 1
        above = pixels - np.float32(low)
        of = above.astype(np.uint16)
        if not np.array_equal(of, above):
            return None
    mask = None if inside is None else np.ascontiguousarray(inside).view(np.uint8)
    counts = cv2.calcHist([of], [0], mask, [levels], [0, levels])
    below = np.cumsum(counts.astype(np.int64))
    return (lowest, below) if below[-1] else None


def _level_at(lowest: int, below: NDArray[np.int64], position: float) -> float:
    """The value at a position between two neighbours of the sorted pixels, as `numpy.percentile` interpolates."""
    first = int(position)
    share = position - first
    at, after = (lowest + int(level) for level in np.searchsorted(below, [first, first + 1], side="right"))
    if share == 0:
        return float(at)
    return after - (after - at) * (1 - share) if share >= 0.5 else at + (after - at) * share


def _resample(pixels: Grey8, box: tuple[int, int, int, int], spec: PreprocessingSpec) -> Item:
    x, y, w, h = box
    side = max(w, h) * (1 + 2 * spec.margin)
    region = Region(x + w / 2 - side / 2, y + h / 2 - side / 2, side, side)
    return Item(_warp(pixels, region, spec.size), region)


def _warp(pixels: Grey8, region: Region, size: int) -> Grey8:
    """Resample a square region to `[size, size]`, averaging over areas where it shrinks."""
    left, top = round(region.x), round(region.y)
    side = max(1, round(region.width))
    height, width = pixels.shape
    square = np.zeros((side, side), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    shrinking = side >= size
    out = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    return np.asarray(out, np.uint8)
