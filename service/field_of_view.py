"""Find what of a frame a model is to see: the head without the air around it, or an OCT scan without its fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.types import Float, Grey8, PreprocessingSpec, Turn

_DETECTION_SIDE = 256  # the head is found on a copy with square pixels whose longer side is this
_STATISTICS = 64  # slices of a series, spread over it, on which the threshold between head and air is found
_STRETCH = (0.5, 99.8)  # percentiles of that copy that become 0 and 255
_AIR, _DARKEST = 0.2, 6  # the threshold: this share of Otsu's, but so many levels at least
_SOLID = 7  # pixels of that copy: what is thinner is text, a ruler or a frame, unless it lies near the head
_NEAR = 13  # pixels of that copy around the head within which what is thin belongs to it: scalp, ears, nose
_PART = 0.03  # of the area of the largest object: what is larger than that belongs to the head
_LEAST = 0.1  # of that copy that the box around a head covers; with less, nothing looks like a head
_WHITE = 250  # of 255 levels: what an OCT device fills registered frames with is at least as bright
_TOUCHING = 8  # pixels at the border: fewer are tissue
_SAME = 2  # of 255 levels: what lies within them of the brightest is as bright, after JPEG or interpolation
_FLAT = 0.5  # of an area of fill that is as bright; bright tissue has less
_SAMPLED = 2**22  # pixels of a frame that are looked at for that, at most
_FILL_BLEED = 5  # pixels of JPEG ringing around that fill, of the longer side of a pixel

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]  # x, y, width, height, in pixels


@dataclass(frozen=True, slots=True)
class Upright:
    """A frame in the model's orientation, or the part of it that is no padding.

    Attributes:
        pixels: `[H, W]`, a view of the frame's.
        inside: bool `[H, W]`, true where a pixel is of the picture: neither padding nor fill; None: all are.
        aspect: height of a pixel divided by its width, as the model sees it.
        turn: from the stored orientation.
        frame: rows and columns of the whole frame.
        left: columns of the frame to the left of the part.
        top: rows of the frame above the part.
    """

    pixels: Grey8 | Float
    inside: Mask | None
    aspect: float
    turn: Turn
    frame: tuple[int, int]
    left: int = 0
    top: int = 0

    @property
    def kind(self) -> tuple[object, ...]:
        """Tell apart slices that cannot share a crop."""
        return self.frame, self.aspect, self.turn


def trimmed(slices: Sequence[Upright]) -> list[Upright]:
    """Cut away the rows and columns that are padding in all slices of one kind."""
    insides = [one.inside for one in slices if one.inside is not None]
    if len(insides) < len(slices):
        return list(slices)
    x, y, width, height = _bounding_box(np.any(insides, axis=0)) or (0, 0, *slices[0].frame[::-1])
    part = np.s_[y : y + height, x : x + width]
    return [
        replace(one, pixels=one.pixels[part], inside=inside[part], left=x, top=y)
        for one, inside in zip(slices, insides, strict=True)
    ]


def without_fill(one: Upright) -> Upright:
    """Take what an OCT device filled after registration out of the picture."""
    scanned = ~registration_fill(one.pixels, one.inside, one.aspect)
    return replace(one, inside=scanned if one.inside is None else one.inside & scanned)


def find_crop(slices: Sequence[Upright], spec: PreprocessingSpec) -> Box:
    """Find the field of view of some slices.

    Args:
        slices: of one kind.
        spec: the model's preprocessing.

    Returns:
        A box around all that is to be seen; the whole frame where nothing is found.
    """
    height, width = _shape(slices)
    found: Box | None = None
    if spec.field_of_view == "scan":
        seen = np.zeros((height, width), np.bool_)
        for one in slices:
            seen |= True if one.inside is None else one.inside
        found = _bounding_box(seen)
    elif spec.field_of_view == "head":
        found = _head_box(slices)
    return found or (0, 0, width, height)


def _shape(slices: Sequence[Upright]) -> tuple[int, int]:
    rows, columns = slices[0].pixels.shape
    return rows, columns


def _bounding_box(mask: Mask) -> tuple[int, int, int, int] | None:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (x, y, width, height) if width else None


def _head_box(slices: Sequence[Upright]) -> Box | None:
    """Bound the heads of all slices: air, burnt-in text, rulers and thin frames are left out, dim scalp is not."""
    chosen = slices[:: ceil(len(slices) / _STATISTICS)]
    copies = [_detection_copy(one) for one in chosen]
    low, high = np.percentile(np.stack([copy[::2, ::2] for copy in copies]), _STRETCH)
    levels = [stretch(copy, float(low), float(high)) for copy in copies]
    otsu, _ = cv2.threshold(np.concatenate(levels), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if len(chosen) < len(slices):
        levels = (stretch(_detection_copy(one), float(low), float(high)) for one in slices)
    head = np.zeros(copies[0].shape, np.bool_)
    for level in levels:
        head |= _head(level > max(_AIR * otsu, _DARKEST))
    found = _bounding_box(head)
    if found is None or found[2] * found[3] < _LEAST * head.size:
        return None
    height, width = _shape(slices)
    rows, columns = copies[0].shape
    across, down = width / columns, height / rows
    return found[0] * across, found[1] * down, found[2] * across, found[3] * down


def _detection_copy(one: Upright) -> Float:
    """Make a small copy with square pixels; what is outside of the picture is as dark as its darkest pixel."""
    pixels = np.ascontiguousarray(one.pixels, np.float32)
    if one.inside is not None:
        pixels = np.where(one.inside, pixels, pixels[one.inside].min())
    height, width = pixels.shape[0] * one.aspect, pixels.shape[1]
    scale = _DETECTION_SIDE / max(height, width)
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    return resized(pixels, shape, cv2.INTER_LINEAR)


def _head(bright: Mask) -> Mask:
    """Find the pixels of a detection copy that belong to the head, by those that are no air."""
    thin = np.asarray(cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)
    round_kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SOLID, _SOLID))
    solid = cv2.morphologyEx(_filled(thin, 0.0), cv2.MORPH_OPEN, round_kernel)
    head = _filled(np.asarray(solid, np.uint8), _PART)
    count, labels = cv2.connectedComponents(thin, connectivity=8, ltype=cv2.CV_16U)
    parts = np.asarray(labels, np.uint16)
    belongs = np.zeros(count, np.uint8)
    for _ in range(2):
        near = np.asarray(cv2.dilate(head, np.ones((_NEAR, _NEAR), np.uint8)), np.bool_)
        met = np.bincount(parts[near], minlength=count) > 0
        met[0] = False  # air
        if not (met & (belongs == 0)).any():
            break
        belongs[met] = 1
        head |= np.take(belongs, parts)
    return head.astype(np.bool_)


def _filled(objects: Grey8, part: float) -> Grey8:
    """Fill the holes of objects, and leave out those with less than a part of the largest one's area."""
    outlines, _ = cv2.findContours(objects, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(outline) for outline in outlines]
    least = part * max(areas, default=0.0)
    large = [outline for outline, area in zip(outlines, areas, strict=True) if area >= least]
    return np.asarray(cv2.drawContours(np.zeros_like(objects), large, -1, 1, cv2.FILLED), np.uint8)


def registration_fill(pixels: Grey8 | Float, inside: Mask | None = None, aspect: float = 1.0) -> Mask:
    """Find the white with which an OCT device fills frames that it registered.

    Args:
        pixels: `[H, W]`, any range.
        inside: bool `[H, W]`, true where a pixel is no padding; None: everywhere.
        aspect: height of a pixel divided by its width, as the model sees it.

    Returns:
        bool `[H, W]`: flat areas of the brightest level that touch the border, with the JPEG ringing around them.
    """
    stored: NDArray[Any] = np.ascontiguousarray(pixels)
    seen = stored if inside is None else stored[inside]
    low, high = float(seen.min()), float(seen.max())
    level = (high - low) / 255
    if not level:
        return np.zeros(pixels.shape, np.bool_)
    found, connected = cv2.connectedComponents((stored >= low + _WHITE * level).astype(np.uint8), connectivity=4)
    labels = np.asarray(connected, np.intp)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touching = np.bincount(border, minlength=found) >= _TOUCHING
    touching[0] = False  # what is not white
    fill = (touching & _flat(stored >= high - _SAME * level, labels, found))[labels].astype(np.uint8)
    grown = [round(_FILL_BLEED * max(1.0, finer)) | 1 for finer in (1 / aspect, aspect)]
    return np.asarray(cv2.dilate(fill, np.ones(grown, np.uint8)), np.uint8).astype(np.bool_)


def _flat(brightest: Mask, labels: NDArray[np.intp], count: int) -> Mask:
    """Tell for each of some labels whether most of its pixels are as bright as the brightest."""
    step = 1 + labels.size // _SAMPLED
    which = labels.ravel()[::step]
    sizes = np.bincount(which, minlength=count)
    return np.bincount(which, brightest.ravel()[::step], minlength=count) >= _FLAT * np.maximum(sizes, 1)


def stretch(pixels: Float, low: float, high: float) -> Grey8:
    """Map values float32 from `low` to `high` to 0 to 255, clipped and rounded."""
    scaled = np.subtract(pixels, np.float32(low))
    scaled *= np.float32(255.0 / max(high - low, 1e-6))
    np.clip(scaled, 0, 255, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def resized(image: NDArray[Any], shape: tuple[int, int], enlarging: int) -> NDArray[Any]:
    """Resample an image, averaged over areas along axes that shrink.

    Args:
        image: `[H, W]`, uint8 or float32.
        shape: rows and columns of the result.
        enlarging: OpenCV's interpolation along axes that grow.

    Returns:
        `[*shape]` of the image's dtype.
    """
    height, width = image.shape
    smaller = min(height, shape[0]), min(width, shape[1])
    if smaller != (height, width):
        image = np.asarray(cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA))
    if smaller != shape:
        image = np.asarray(cv2.resize(image, shape[::-1], interpolation=enlarging))
    return image
