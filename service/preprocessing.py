"""From a frame to model input. The one definition that training and serving share."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.field_of_view import Box, Mask, Upright, find_crop, stretch, trimmed, without_fill
from service.orientation import region_turned_back, turn_of, turned
from service.types import Float, Frame, Grey8, Item, PreprocessingSpec, Region

_LEVELS = 2**16  # that are counted
_EXACT = 2**23  # up to which float32 holds whole numbers, and what is 16 bits above
_FINEST = 8  # pixels of a crop for one of the input; more are averaged first, to bound memory
_LARGEST_ASPECT = 64.0  # of pixels, either way; what lies beyond is no geometry of a scan

Edges = NDArray[np.float64]


def prepare(frame: Frame, spec: PreprocessingSpec) -> Item:
    """Turn, crop, window, pad and resample one frame.

    Args:
        frame: pixels uint8 or float32 `[H, W]`.
        spec: the model's preprocessing.

    Returns:
        An item with pixels uint8 `[size, size]` and the region, in pixels of the frame, that they cover. The aspect of
        the anatomy is preserved. What lies outside the frame, and its padding, is black.
    """
    (item,) = prepare_series([frame], spec)
    return item


def prepare_series(frames: Sequence[Frame], spec: PreprocessingSpec) -> list[Item]:
    """Prepare the slices of a series, with one crop that is found on all of them.

    Args:
        frames: in any order. Those of another shape, pixel aspect or orientation have a crop of their own.
        spec: the model's preprocessing.

    Returns:
        One item for each frame, in order; see `prepare`.
    """
    upright = [_turn_upright(frame, spec) for frame in frames]
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, one in enumerate(upright):
        kinds.setdefault(one.kind, []).append(place)
    items: dict[int, Item] = {}
    for places in kinds.values():
        slices = trimmed([upright[place] for place in places])
        if spec.field_of_view == "scan":
            slices = [without_fill(one) for one in slices]
        crop = find_crop(slices, spec)
        items |= {place: _resample(one, crop, spec) for place, one in zip(places, slices, strict=True)}
    return [items[place] for place in range(len(frames))]


def prepare_mask(mask: Grey8, item: Item) -> Grey8:
    """Bring a mask of the source image onto the model input's grid.

    Args:
        mask: uint8 `[H, W]`, non-zero is inside.
        item: what `prepare` returned for the image that the mask belongs to.

    Returns:
        uint8 of the item's size, 0..255: the covered share of every pixel.
    """
    whole = np.where(mask > 0, np.uint8(255), np.uint8(0))
    region = item.region
    box = region.x, region.y, region.width, region.height
    return np.ascontiguousarray(turned(_warp(whole, box, item.pixels.shape[0]), item.turn))


def _turn_upright(frame: Frame, spec: PreprocessingSpec) -> Upright:
    turn = turn_of(frame.orientation, spec.orientation)
    aspect = 1.0
    if frame.aspect is not None:
        aspect = round((1 / frame.aspect if turn.transpose else frame.aspect) / spec.pixel_aspect, 6)
        if not 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT:
            aspect = 1.0
    pixels = turned(frame.pixels, turn)
    inside = None if frame.padding is None else ~turned(frame.padding, turn)
    rows, columns = pixels.shape
    return Upright(pixels, inside, aspect, turn, (rows, columns))


def _resample(one: Upright, crop: Box, spec: PreprocessingSpec) -> Item:
    """Window a crop, pad it to a square and bring it to the model's size."""
    x, y, width, height = crop
    side = max(width, height * one.aspect) * (1 + 2 * spec.margin)  # in widths of a pixel
    wide, high = round(side, 3), round(side / one.aspect, 3)
    left, top = round(x + width / 2 - wide / 2, 3), round(y + height / 2 - high / 2, 3)
    stored: NDArray[Any] = np.ascontiguousarray(one.pixels)
    windowed = _window(stored, one.inside, crop, spec.window)
    pixels = _warp(windowed, (left, top, wide, high), spec.size)
    region = region_turned_back(Region(left + one.left, top + one.top, wide, high), one.turn, one.frame)
    return Item(pixels, region, one.turn, _unseen(one, (left, top, wide, high)))


def _unseen(one: Upright, box: Box) -> float:
    """Compute the share of the frame's pixels that lie outside of a box or of the picture."""
    left, top, right, bottom = _whole(box, one.pixels.shape)
    seen = (right - left) * (bottom - top)
    if one.inside is not None:
        seen = int(np.count_nonzero(one.inside[top:bottom, left:right]))
    return round(1 - seen / (one.frame[0] * one.frame[1]), 4)


def _whole(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Find the pixels of an image that a box touches: left, top, right, bottom, the last two behind them."""
    left, top, wide, high = box
    right, bottom = min(ceil(left + wide), shape[1]), min(ceil(top + high), shape[0])
    return max(floor(left), 0), max(floor(top), 0), right, bottom


def _window(pixels: Grey8 | Float, inside: Mask | None, crop: Box, window: tuple[float, float]) -> Grey8:
    """Map the two percentiles of the crop to 0 and 255; pixels that are not inside become black."""
    left, top, right, bottom = _whole(crop, pixels.shape)
    part = np.s_[top:bottom, left:right]
    low, high = _percentiles(pixels[part], None if inside is None else inside[part], window)
    if pixels.dtype == np.uint8:  # there are 256 levels: look them up
        levels = stretch(np.arange(256, dtype=np.float32), low, high)
        windowed = np.asarray(cv2.LUT(pixels, levels), np.uint8)
    else:
        windowed = stretch(pixels.astype(np.float32, copy=False), low, high)
    return windowed if inside is None else windowed * inside


def _percentiles(pixels: Grey8 | Float, inside: Mask | None, window: tuple[float, float]) -> tuple[float, float]:
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


def _counted(pixels: Grey8 | Float, inside: Mask | None) -> tuple[int, NDArray[np.int64]] | None:
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


def _warp(pixels: Grey8, box: Box, size: int) -> Grey8:
    """Resample a box, black where it reaches beyond the image, to `[size, size]`.

    Along an axis that shrinks, every pixel is the mean over its area, to fractions of a source pixel: the same anatomy
    on a finer grid gives the same input. Along one that grows, it is interpolated (cubic).
    """
    x0, y0, x1, y1 = _whole(box, pixels.shape)
    part = pixels[y0:y1, x0:x1]
    left, top, wide, high = box[0] - x0, box[1] - y0, box[2], box[3]
    rows, columns = part.shape
    coarse = ceil(rows / max(1, high // (_FINEST * size))), ceil(columns / max(1, wide // (_FINEST * size)))
    if coarse != part.shape:
        down, across = coarse[0] / rows, coarse[1] / columns
        part = np.asarray(cv2.resize(part, coarse[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        left, top, wide, high = left * across, top * down, wide * across, high * down
    rows, columns = part.shape
    downwards, rightwards = _edges(0, rows, rows), _edges(0, columns, columns)
    if high >= size:
        downwards, top, high = _edges(top, high, size), 0.0, float(size)
    if wide >= size:
        rightwards, left, wide = _edges(left, wide, size), 0.0, float(size)
    image = _averaged(part, downwards, rightwards)
    if image.shape != (size, size):
        image = _interpolated(image, (left, top, wide, high), size)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def _edges(start: float, length: float, count: int) -> Edges:
    """Divide an interval into `count` equal parts: their `count + 1` edges."""
    return np.float64(start) + np.arange(count + 1, dtype=np.float64) * np.float64(length / count)


def _averaged(image: Grey8, downwards: Edges, rightwards: Edges) -> Float:
    """Average an image over the cells between edges, in pixels from its upper left corner; beyond it everything is 0.

    The sum over a cell with fractions of pixels is exact by the integral image (Crow, SIGGRAPH 1984), interpolated.

    Args:
        image: `[H, W]`.
        downwards: m + 1 edges, evenly spaced.
        rightwards: n + 1 edges, evenly spaced.

    Returns:
        float32 `[m, n]`.
    """
    sums = np.asarray(cv2.integral(image, sdepth=cv2.CV_64F), np.float64)
    by_rows = _at(sums, downwards)
    by_cells = _at((by_rows[1:] - by_rows[:-1]).T, rightwards)
    area = (downwards[1] - downwards[0]) * (rightwards[1] - rightwards[0])
    return ((by_cells[1:] - by_cells[:-1]).T / area).astype(np.float32)


def _at(sums: Edges, places: Edges) -> Edges:
    """Interpolate the rows of `[H + 1, W]` at places from 0 to H; those beyond are taken as the nearest."""
    within = np.clip(places, 0, len(sums) - 1)
    before = np.minimum(within.astype(np.intp), len(sums) - 2)
    rest = (within - before)[:, np.newaxis]
    return sums[before] * (1 - rest) + sums[before + 1] * rest


def _interpolated(image: Float, box: Box, size: int) -> Float:
    """Interpolate a box of an image at the centres of `[size, size]` equal cells."""
    left, top, wide, high = box
    across, down = wide / size, high / size
    places = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(np.ascontiguousarray(image), places, (size, size), flags=flags), np.float32)
