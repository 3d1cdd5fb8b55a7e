"""Exact and near duplicates by perceptual hash.

Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): the signs of the low
frequencies of a cosine transform. Two images are near duplicates when few of the bits differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from training.datasets.record import Image, Record

HASH_SIDE = 16  # 256 bits
NEAR = 30  # bits of 256 that near duplicates may differ by
_CHUNK = 1024


def perceptual_hashes(records: Sequence[Record]) -> NDArray[np.bool_]:
    """Hash every image: bool `[N, 256]`."""
    bits = [_hash(record) for record in tqdm(records, desc="hashing", unit="image", leave=False)]
    return np.stack(bits)


def _hash(record: Record) -> NDArray[np.bool_]:
    return perceptual_hash(record.load_image())


def perceptual_hash(image: Image) -> NDArray[np.bool_]:
    """Hash one grey image `[H, W]`: bool `[256]`."""
    scaled = image.astype(np.float32)
    scaled -= scaled.min()
    scaled *= 255.0 / max(float(scaled.max()), 1e-6)
    grey = PillowImage.fromarray(scaled.astype(np.uint8))
    return np.asarray(imagehash.phash(grey, hash_size=HASH_SIDE).hash, np.bool_).ravel()


def near_pairs(hashes: NDArray[np.bool_], near: int = NEAR) -> NDArray[np.int64]:
    """Pairs `[P, 2]`, first index below the second, whose hashes differ in at most `near` bits."""
    signs = hashes.astype(np.float32) * 2 - 1
    bits = hashes.shape[1]
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(signs), _CHUNK):
        distance = (bits - signs[start : start + _CHUNK] @ signs.T) / 2
        rows, columns = np.nonzero(distance <= near)
        rows = rows + start
        keep = rows < columns
        found.append(np.stack([rows[keep], columns[keep]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def clusters(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Cluster number of each of `count` images: connected components of the near-duplicate graph."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
