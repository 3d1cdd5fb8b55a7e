"""How good generated images are: whether a classifier knows them, how they are spread, and whether they are copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances

from service.types import Float, Grey8

Array = NDArray[np.float64]
NEAR = 0.05  # quantile of the distances of unseen real images below which an image counts as near to a training image


def frechet_distance(a: Float, b: Float) -> float:
    """Distance of two sets of features `[N, D]`, `[M, D]` as Gaussians (Heusel et al., NeurIPS 2017), not negative.

    The features are those of a classifier of this very data, not Inception's: the distance compares sets here, and
    with nothing elsewhere.
    """
    first, second = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    root = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()  # the trace of the product's square root
    gap = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    return max(0.0, float(gap @ gap + np.trace(first + second) - 2 * root))


def nearest(images: Grey8, known: Grey8) -> Array:
    """Root mean square difference in grey levels to the nearest of the `known` images, mirrored ones too, `[N]`."""
    flat, side = _flat(images), images.shape[-1]
    distances = [euclidean_distances(flat, _flat(each)).min(axis=1) for each in (known, known[..., ::-1])]
    return np.minimum(*distances) / side


def memorised_share(generated: Array, unseen: Array) -> float:
    """Share of generated images nearer to a training image than all but 5 % of unseen real ones are.

    Args:
        generated: `nearest` of generated images among the training images.
        unseen: `nearest` of real images of another part among the training images.

    Returns:
        0..1; 0.05 is what unseen real images themselves give. Much more means copies.
    """
    return float((generated < np.quantile(unseen, NEAR)).mean())


def spread(images: Grey8) -> float:
    """Mean root mean square difference in grey levels between two images: near 0 where all are alike."""
    flat, side = _flat(images), images.shape[-1]
    distances = euclidean_distances(flat)
    return float(distances.sum() / (len(flat) * (len(flat) - 1)) / side)


def _flat(images: Grey8) -> Array:
    return images.reshape(len(images), -1).astype(np.float64)
