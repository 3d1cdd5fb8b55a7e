"""Does a saliency map mark the lesion? Two measures, and the baselines that they must beat.

A map has any grid. `pointing_game` and `energy_inside` resample it bilinearly to the mask's, cell centres on cell
centres; `peak_inside`, `share_inside` and `cell_precision` take its cells as they are, which is what a map says whose
cells are what the network decides on. Positive values speak for the target class. A map without positive values marks
nothing: it misses, and none of its evidence is inside.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.types import Float

Saliency = NDArray[np.floating]
Mask = NDArray[np.bool_] | NDArray[np.uint8]
_GRID = 28  # cells of `cell_precision`
_INSIDE = 0.25  # of a cell


def pointing_game(saliency: Saliency, mask: Mask) -> bool:
    """Whether the peak of the map lies inside the mask.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, without their tolerance of 15 pixels.

    Args:
        saliency: `[h, w]`, signed.
        mask: `[H, W]`, non-zero is inside. An empty mask is never hit.

    Returns:
        True for a hit. Where pixels tie for the peak, the one nearest to their centroid counts, so that a flat map
        points at the centre.

    Raises:
        ValueError: the map is not two-dimensional, empty or not finite, or the mask is not two-dimensional.
    """
    values = _on_mask_grid(saliency, mask)
    if values.max() <= 0:
        return False
    return bool(mask[_middle_of_peak(values)])


def energy_inside(saliency: Saliency, mask: Mask) -> float:
    """Share of the map's positive values that lies inside the mask, 0..1.

    Wang et al., "Score-CAM", CVPR workshops 2020 (energy-based pointing game), here with a mask for the box.

    Args:
        saliency: `[h, w]`, signed.
        mask: `[H, W]`, non-zero is inside.

    Raises:
        ValueError: as `pointing_game`.
    """
    positive = np.maximum(_on_mask_grid(saliency, mask), 0).astype(np.float64)
    total = float(positive.sum())
    return float(positive[np.asarray(mask) > 0].sum()) / total if total > 0 else 0.0


def peak_inside(saliency: Saliency, mask: Mask) -> bool:
    """Whether the centre of the map's strongest cell lies inside the mask, at the pixel of the mask that holds it.

    Where cells tie for the peak, the one nearest to their centroid counts.

    Args:
        saliency: `[h, w]`, signed.
        mask: `[H, W]`, non-zero is inside. An empty mask is never hit.

    Raises:
        ValueError: as `pointing_game`.
    """
    _require(saliency, mask)
    if saliency.max() <= 0:
        return False
    row, column = _middle_of_peak(saliency)
    down, right = mask.shape[0] / saliency.shape[0], mask.shape[1] / saliency.shape[1]
    return bool(mask[int((row + 0.5) * down), int((column + 0.5) * right)])


def share_inside(saliency: Saliency, mask: Mask) -> float:
    """Share of the map's positive values inside the mask, 0..1, each cell counting for the area that it covers.

    Args:
        saliency: `[h, w]`, signed.
        mask: `[H, W]`, non-zero is inside.

    Raises:
        ValueError: as `pointing_game`.
    """
    _require(saliency, mask)
    positive = np.maximum(saliency.astype(np.float64), 0)
    covered = _cells(np.asarray(mask) > 0, (saliency.shape[0], saliency.shape[1]))
    total = float(positive.sum())
    return float((positive * covered).sum()) / total if total > 0 else 0.0


def cell_precision(saliency: Saliency, mask: Mask) -> float:
    """Average precision of cells against the mask, on a grid of 28 x 28 whatever the map's, so that maps compare.

    A cell is inside where at least a quarter of it is; where that is true of none, the fullest cell is. A map that
    says the same everywhere reaches the share of the cells that are inside.

    Args:
        saliency: `[h, w]`, signed.
        mask: `[H, W]`, non-zero is inside. An empty mask gives 0.

    Raises:
        ValueError: as `pointing_game`.
    """
    _require(saliency, mask)
    covered = _cells(np.asarray(mask) > 0, (_GRID, _GRID))
    if covered.max() <= 0:
        return 0.0
    inside = covered >= min(_INSIDE, float(covered.max()))
    how = cv2.INTER_AREA if max(saliency.shape) > _GRID else cv2.INTER_NEAREST
    values = cv2.resize(saliency.astype(np.float32), (_GRID, _GRID), interpolation=how)
    return average_precision(inside.ravel(), np.asarray(values, np.float32).ravel())


def average_precision(inside: NDArray[np.bool_], values: NDArray[np.floating]) -> float:
    """Mean precision over the members of `inside` by falling values `[M]`; ties count together. As scikit-learn's."""
    order = np.argsort(-values, kind="stable")
    hits, ranked = np.cumsum(inside[order]), values[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # the last of each set of ties
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / hits[-1])


def centre_map(grid: tuple[int, int]) -> Float:
    """A map float32 `[h, w]` that marks the middle cell (two or four where the grid is even) and nothing else."""
    values = np.zeros(grid, np.float32)
    height, width = grid
    values[(height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1] = 1
    return values


def random_map(grid: tuple[int, int], random: np.random.Generator) -> Float:
    """A map float32 `[h, w]` of independent uniform noise, 0..1."""
    return random.random(grid, np.float32)


def _middle_of_peak(values: Saliency) -> tuple[int, int]:
    """Row and column of the largest value; of several, that nearest to their centroid."""
    peaks = np.argwhere(values >= values.max())
    row, column = peaks[np.square(peaks - peaks.mean(axis=0)).sum(axis=1).argmin()]
    return int(row), int(column)


def _cells(inside: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell of a grid `[h, w]` that is inside; cells need not hold whole pixels."""
    rows, columns = (_overlaps(cells, pixels) for cells, pixels in zip(grid, inside.shape, strict=True))
    return rows @ inside @ columns.T


def _overlaps(cells: int, pixels: int) -> NDArray[np.float64]:
    """Share of each cell that each pixel is, `[cells, pixels]`; rows sum to 1."""
    ends = np.arange(cells + 1) * pixels / cells
    starts = np.arange(pixels)
    shared = np.minimum(ends[1:, None], starts + 1) - np.maximum(ends[:-1, None], starts)
    return np.maximum(shared, 0) * cells / pixels


def _require(saliency: Saliency, mask: Mask) -> None:
    if saliency.ndim != 2 or mask.ndim != 2 or not saliency.size or not mask.size:
        raise ValueError(f"a map and a mask have two axes each; got shapes {saliency.shape} and {mask.shape}")
    if not np.isfinite(saliency).all():
        raise ValueError("the saliency map holds values that are not finite")


def _on_mask_grid(saliency: Saliency, mask: Mask) -> Float:
    _require(saliency, mask)
    height, width = mask.shape
    resampled = cv2.resize(saliency.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resampled, np.float32)
