"""Does a saliency map mark the lesion? Two measures, and the baselines that they must beat.

A map has any grid; it is resampled bilinearly to the mask's, cell centres on cell centres. Positive values speak for
the target class. A map without positive values marks nothing: it misses, and none of its evidence is inside.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from service.types import Float

Saliency = NDArray[np.floating]
Mask = NDArray[np.bool_] | NDArray[np.uint8]


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
    peaks = np.argwhere(values >= values.max())
    nearest = np.square(peaks - peaks.mean(axis=0)).sum(axis=1).argmin()
    row, column = peaks[nearest]
    return bool(mask[row, column])


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


def centre_map(grid: tuple[int, int]) -> Float:
    """A map float32 `[h, w]` that marks the middle cell (two or four where the grid is even) and nothing else."""
    values = np.zeros(grid, np.float32)
    height, width = grid
    values[(height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1] = 1
    return values


def random_map(grid: tuple[int, int], random: np.random.Generator) -> Float:
    """A map float32 `[h, w]` of independent uniform noise, 0..1."""
    return random.random(grid, np.float32)


def _on_mask_grid(saliency: Saliency, mask: Mask) -> Float:
    if saliency.ndim != 2 or mask.ndim != 2 or not saliency.size or not mask.size:
        raise ValueError(f"a map and a mask have two axes each; got shapes {saliency.shape} and {mask.shape}")
    if not np.isfinite(saliency).all():
        raise ValueError("the saliency map holds values that are not finite")
    height, width = mask.shape
    resampled = cv2.resize(saliency.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resampled, np.float32)
