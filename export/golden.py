"""Synthetic images for the golden sample: no patient's image leaves training inside a bundle."""

from __future__ import annotations

import cv2
import numpy as np

from service.types import Grey8

COUNT = 4


def phantoms(size: int, seed: int = 0) -> Grey8:
    """Drawn model inputs: heads with a bright round spot, and layered bands; smooth noise on all.

    Args:
        size: side in pixels.
        seed: of the noise and of the spots' places.

    Returns:
        uint8 `[4, size, size, 1]`.
    """
    random = np.random.default_rng(seed)
    images = [_head(size, random), _bands(size, random), _head(size, random), _bands(size, random)]
    return np.stack(images)[..., None]


def _head(size: int, random: np.random.Generator) -> Grey8:
    canvas = np.zeros((size, size), np.uint8)
    centre = (size // 2, size // 2)
    cv2.ellipse(canvas, centre, (int(size * 0.38), int(size * 0.47)), 0, 0, 360, 200, -1)
    cv2.ellipse(canvas, centre, (int(size * 0.34), int(size * 0.43)), 0, 0, 360, 90, -1)
    x, y = (int(v) for v in random.uniform(0.35, 0.65, 2) * size)
    cv2.circle(canvas, (x, y), size // 12, 230, -1)
    return _finish(canvas, random)


def _bands(size: int, random: np.random.Generator) -> Grey8:
    rows = np.arange(size, dtype=np.float32)[:, None]
    columns = np.arange(size, dtype=np.float32)[None, :]
    depth = (rows - size * (0.45 + 0.05 * np.sin(columns / size * np.pi * random.uniform(1, 3)))) / size
    layers = np.where((depth > 0) & (depth < 0.22), 110 + 90 * np.cos(depth * 90), 25)
    return _finish(layers.astype(np.uint8), random)


def _finish(canvas: Grey8, random: np.random.Generator) -> Grey8:
    noise = np.asarray(cv2.GaussianBlur(random.normal(0, 24, canvas.shape), (0, 0), 1.2))
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)
