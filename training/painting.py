"""Lesions painted out, so that a network sees the same slice without its finding.

The measure of the same thing (`training.shortcut`) uses other painters, which no network is trained on. All functions
work on model input: grey uint8 `[S, S]`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.types import Grey8

Mask = NDArray[np.bool_]
_TISSUE = 15  # grey values of 255 from which on a pixel is tissue
_LARGEST = 0.15  # of the image: what is larger leaves too little to paint with
_TRIES = 8


def paint_out(image: Grey8, mask: Grey8, random: np.random.Generator) -> Grey8:
    """Paint over a lesion and its rim by one of four painters.

    Args:
        image: uint8 `[S, S]`.
        mask: uint8 `[S, S]`, non-zero inside.
        random: chooses the painter and its strength.
    """
    area = widened(mask, int(random.integers(3, 9)))
    painters = (_from_elsewhere, _flat, _mirrored, _inwards)
    first = int(random.choice(len(painters), p=(0.2, 0.15, 0.35, 0.3)))
    for painter in (painters[first], _inwards):
        painted = painter(image, area, random)
        if painted is not None:
            return painted
    return image


def can_be_painted(mask: Grey8) -> bool:
    """Whether there is a lesion, and not too large a one."""
    return 0 < float((mask > 127).mean()) < _LARGEST


def touch_elsewhere(image: Grey8, own: Grey8, other: Grey8, random: np.random.Generator) -> Grey8:
    """Paint over a place in the head that is no lesion: the shape of another image's lesion, away from the own one.

    Returns:
        The image as it is where no such place was found.
    """
    near = widened(own, 12)
    for _ in range(_TRIES):
        shift = random.integers(-image.shape[0] // 4, image.shape[0] // 4 + 1, 2)
        shape = np.roll(other, tuple(shift.tolist()), (0, 1))
        area = shape > 127
        if area.any() and not (area & near).any() and (image[area] > _TISSUE).mean() > 0.8:
            return paint_out(image, shape, random)
    return image


def strip_skull(image: Grey8, mask: Grey8, random: np.random.Generator) -> Grey8:
    """Black out what lies within some 4 to 9 % of the side of the head's edge, as skull-stripped images have it.

    Returns:
        The image as it is where that would take more than a fiftieth of the lesion.
    """
    side = image.shape[0]
    head = cv2.morphologyEx((image > _TISSUE).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    reach = int(random.integers(round(0.036 * side), round(0.09 * side)))
    inner = cv2.erode(head, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    lesion = mask > 127
    if lesion.any() and inner[lesion].mean() < 0.98:
        return image
    return np.where(inner > 0, image, np.uint8(0))


def widened(mask: Grey8, reach: int) -> Mask:
    """The mask grown by `reach` pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate((mask > 127).astype(np.uint8), disc).astype(np.bool_)


def _inwards(image: Grey8, area: Mask, random: np.random.Generator) -> Grey8 | None:
    """Filled from the rim inwards (Telea, J. Graph. Tools 2004), mostly with noise on it."""
    painted = cv2.inpaint(image, area.astype(np.uint8), int(random.integers(3, 9)), cv2.INPAINT_TELEA)
    if random.random() < 0.7:
        noise = area * random.normal(0, random.uniform(2, 10), image.shape)
        return np.clip(painted + noise, 0, 255).astype(np.uint8)
    return np.asarray(painted, np.uint8)


def _mirrored(image: Grey8, area: Mask, random: np.random.Generator) -> Grey8 | None:
    """Filled with the other side's tissue; None where that is the lesion itself."""
    columns = np.flatnonzero((image > _TISSUE).sum(axis=0) > 10)
    if len(columns) < 10:
        return None
    opposite = np.clip(int(columns[0] + columns[-1]) - np.arange(image.shape[1]), 0, image.shape[1] - 1)
    if (area[:, opposite] & area).any():
        return None
    return _seamless(image, image[:, opposite], area, 7)


def _from_elsewhere(image: Grey8, area: Mask, random: np.random.Generator) -> Grey8 | None:
    """Filled with tissue from another place of the slice; None where that is no tissue, or the lesion."""
    reach = image.shape[0] // 4
    shift = tuple(random.integers(-reach, reach + 1, 2).tolist())
    moved = np.roll(image, shift, (0, 1))
    if (np.roll(area, shift, (0, 1)) & area).any() or not (moved[area] > _TISSUE).mean() > 0.9:
        return None
    return _seamless(image, moved, area, 9)


def _flat(image: Grey8, area: Mask, random: np.random.Generator) -> Grey8 | None:
    """Filled with the tone of the rim and a smooth texture; None where there is no rim."""
    rim = cv2.dilate(area.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(np.bool_) & ~area
    if not rim.any():
        return None
    texture = cv2.GaussianBlur(random.normal(0, 1, image.shape), (0, 0), random.uniform(1, 4))
    return _seamless(image, float(np.median(image[rim])) + texture * random.uniform(2, 25), area, 9)


def _seamless(image: Grey8, filling: NDArray[np.generic], area: Mask, seam: int) -> Grey8:
    share = cv2.GaussianBlur(area.astype(np.float32), (seam, seam), 0)
    return np.clip(np.rint(image * (1 - share) + filling.astype(np.float32) * share), 0, 255).astype(np.uint8)
