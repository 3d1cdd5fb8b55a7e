"""What the perturbing methods share: the field of view, what takes the place of hidden pixels, and players.

A player is a region of the image that is shown or hidden as a whole. Pixels outside the field of view belong to no
player: they stay as they are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.explainers.base import Baseline
from service.types import Float, Grey8

_BLACK = 10  # of 255: air, and what padding leaves
_BLUR = 0.08  # standard deviation, as a fraction of the side

Mask = NDArray[np.bool_]
Labels = NDArray[np.intp]


def field_of_view(image: Grey8) -> Mask:
    """Where the image holds something: the convex hull of what is not black, bool `[H, W]`.

    All of the image where it is black throughout.
    """
    bright = cv2.morphologyEx((image > _BLACK).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    points = cv2.findNonZero(bright)
    if not bright.any():
        return np.ones(image.shape, np.bool_)
    hull = np.zeros(image.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull.astype(np.bool_)


def baseline_image(image: Grey8, baseline: Baseline) -> Grey8:
    """What hidden pixels look like; the field of view keeps its shape.

    Args:
        image: prepared, uint8 `[H, W]`.
        baseline: `blur` (Gaussian, 8 % of the side, of the field of view alone), `mean` (the mean grey of the field of
            view) or `black`.

    Returns:
        uint8 `[H, W]`.
    """
    view = field_of_view(image)
    if baseline == "black":
        hidden = np.zeros(image.shape, np.float32)
    elif baseline == "mean":
        hidden = np.full(image.shape, image[view].mean(), np.float32)
    else:
        sigma = _BLUR * max(image.shape)
        inside = view.astype(np.float32)
        weight = np.asarray(cv2.GaussianBlur(inside, (0, 0), sigma))
        hidden = np.asarray(cv2.GaussianBlur(image * inside, (0, 0), sigma)) / np.maximum(weight, 1e-3)
    return np.where(view, np.clip(np.rint(hidden), 0, 255), image).astype(np.uint8)


def superpixels(image: Grey8, count: int) -> Labels:
    """About `count` compact regions that follow edges (SLIC: Achanta et al., TPAMI 2012), within the field of view.

    Returns:
        int `[H, W]`: the player of each pixel, 0 and up without gaps; -1 outside the field of view.
    """
    from skimage.segmentation import slic

    view = field_of_view(image)
    smooth = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0)).astype(np.float64) / 255
    found = slic(smooth, n_segments=count, compactness=0.1, mask=view, channel_axis=None, start_label=1)
    return relabelled(np.asarray(found, np.intp) - 1)


def relabelled(labels: Labels) -> Labels:
    """The same regions, numbered 0 and up without gaps; negative labels become -1."""
    names = np.unique(labels[labels >= 0])
    index = np.searchsorted(names, np.maximum(labels, names[0] if len(names) else 0))
    return np.where(labels >= 0, index, -1).astype(np.intp)


def composed(image: Grey8, hidden: Grey8, labels: Labels, shown: Mask) -> Grey8:
    """Images in which some players are shown and the others hidden.

    Args:
        image: uint8 `[H, W]`.
        hidden: the baseline, uint8 `[H, W]`.
        labels: the player of each pixel, -1 for none.
        shown: bool `[M, P]`: which players each coalition holds.

    Returns:
        uint8 `[M, H, W]`.
    """
    with_none = np.concatenate([shown, np.ones((len(shown), 1), np.bool_)], axis=1)  # -1 is the last column
    return np.where(with_none[:, labels], image, hidden)


def spread(values: Float | NDArray[np.float64], labels: Labels) -> Float:
    """A map whose sum over each player is its value: float32 `[H, W]`, 0 where there is no player."""
    sizes = np.bincount(labels[labels >= 0], minlength=len(values))
    density = np.append(np.asarray(values, np.float64) / np.maximum(sizes, 1), 0.0)
    return density[labels].astype(np.float32)
