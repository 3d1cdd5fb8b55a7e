"""From a mask on the model's grid to what is reported in pixels of the source image: area and contours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.rendering import on_frame
from service.types import Float, Region

Contour = list[tuple[float, float]]
_DIGITS = 2  # hundredths of a pixel


def mask_on_frame(probabilities: Float, region: Region, shape: tuple[int, ...], threshold: float) -> NDArray[np.bool_]:
    """Which pixels of the source image are inside.

    Args:
        probabilities: float32 `[h, w]`, 0..1, cells of the region from its upper left corner.
        region: the rectangle, in pixels of the source image, that they cover.
        shape: `(H, W)` of the source image.
        threshold: a pixel is inside where the probability, bilinear between cell centres, reaches it.

    Returns:
        bool `[H, W]`.
    """
    return on_frame(probabilities, region, shape) >= threshold


def contours(probabilities: Float, region: Region, shape: tuple[int, ...], threshold: float) -> list[Contour]:
    """Lines around the pixels of `mask_on_frame`, as marching squares draw them (Lorensen & Cline, SIGGRAPH 1987).

    They are drawn on the source's pixels and not on the cells: between these the probability is bilinear, and straight
    lines from cell to cell would enclose other pixels than the mask.

    Args:
        probabilities: as in `mask_on_frame`.
        region: likewise.
        shape: likewise; lines are cut at the image's border.
        threshold: likewise.

    Returns:
        Closed lines of `(x, y)` in pixels of the source image: (0, 0) is the upper left corner of its upper left pixel,
        whose centre is (0.5, 0.5). The first point is not repeated at the end. A line inside another one is a hole
        (even-odd rule). Longest first.
    """
    from skimage.measure import find_contours  # slow to import, and only needed here

    height, width = shape[:2]
    padded = np.pad(on_frame(probabilities, region, shape), 1)  # so that what touches the border is closed
    level = np.nextafter(np.float32(threshold), np.float32(0))  # what reaches the threshold is inside
    found: list[Contour] = []
    for line in find_contours(padded, float(level)):
        points = np.clip(line[:-1, ::-1] - 0.5, 0, [width, height]).round(_DIGITS)
        found.append([(x, y) for x, y in points.tolist()])
    return sorted(found, key=len, reverse=True)
