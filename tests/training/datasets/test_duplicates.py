from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.datasets.duplicates import NEAR, clusters, near_pairs, perceptual_hash, perceptual_hashes
from training.datasets.record import Record


def scene(seed: int) -> np.ndarray:
    """A smooth random image, uint8 `[160, 200]`."""
    noise = np.random.default_rng(seed).normal(size=(160, 200))
    smooth = gaussian_filter(noise, 6)
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def resized(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((120, 96), Image.Resampling.LANCZOS))


def darker(image: np.ndarray) -> np.ndarray:
    return (image * 0.6).astype(np.float32)


def records(images: list[np.ndarray]) -> list[Record]:
    return [Record(f"{i}", "a", f"{i}", lambda image=image: image) for i, image in enumerate(images)]


def test_copies_cluster_and_different_images_do_not() -> None:
    first, second, third = scene(1), scene(2), scene(3)
    images = [first, recompressed(first), resized(first), darker(first), second, recompressed(second), third]
    hashes = perceptual_hashes(records(images))
    assert hashes.shape == (7, 256)
    found = clusters(len(images), near_pairs(hashes))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[4] == found[5]
    assert len({found[0], found[4], found[6]}) == 3


def test_pairs_are_those_within_the_distance() -> None:
    base = np.random.default_rng(0).random(256) < 0.5
    at, beyond = base.copy(), base.copy()
    at[:NEAR] ^= True
    beyond[: NEAR + 1] ^= True
    np.testing.assert_array_equal(near_pairs(np.stack([base, at])), [[0, 1]])
    assert near_pairs(np.stack([base, beyond])).shape == (0, 2)


def test_pairs_are_found_across_chunks() -> None:
    hashes = np.random.default_rng(0).random((1500, 256)) < 0.5
    hashes[1400] = hashes[3]
    hashes[1401] = hashes[1400]
    found = {tuple(pair) for pair in near_pairs(hashes).tolist()}
    assert found == {(3, 1400), (3, 1401), (1400, 1401)}


def test_a_blank_image_has_a_hash() -> None:
    assert perceptual_hash(np.zeros((20, 20), np.uint8)).shape == (256,)
