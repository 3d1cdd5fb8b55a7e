from __future__ import annotations

import cv2
import numpy as np
import pytest

from training.painting import can_be_painted, paint_out, strip_skull, touch_elsewhere


def head(lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc with a bright rim as skull; a bright lesion off its middle, and its mask."""
    random = np.random.default_rng(0)
    image = np.zeros((128, 128), np.uint8)
    cv2.circle(image, (64, 64), 56, 220, -1)
    cv2.circle(image, (64, 64), 50, 100, -1)
    texture = cv2.GaussianBlur(random.normal(0, 60, image.shape), (0, 0), 2)
    image = np.where(image == 100, np.clip(image + texture, 40, 160), image).astype(np.uint8)
    mask = np.zeros_like(image)
    if lesion:
        cv2.circle(mask, (44, 60), 8, 255, -1)
        image[mask > 0] = 250
    return image, mask


@pytest.mark.parametrize("seed", range(24))
def test_the_lesion_is_gone_and_the_rest_stays(seed):
    image, mask = head()
    painted = paint_out(image, mask, np.random.default_rng(seed))
    assert painted[mask > 0].mean() < 190
    far = cv2.dilate(mask, np.ones((33, 33), np.uint8)) == 0
    np.testing.assert_array_equal(painted[far], image[far])


def test_painters_differ():
    image, mask = head()
    painted = {paint_out(image, mask, np.random.default_rng(seed)).tobytes() for seed in range(12)}
    assert len(painted) == 12


def test_lesions_that_fill_the_image_cannot_be_painted():
    _, mask = head()
    assert can_be_painted(mask)
    assert not can_be_painted(np.zeros_like(mask))
    assert not can_be_painted(np.full_like(mask, 255))


def test_touching_elsewhere_leaves_the_lesion_alone():
    image, mask = head()
    changed = 0
    for seed in range(10):
        touched = touch_elsewhere(image, mask, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(touched[mask > 0], image[mask > 0])
        changed += bool((touched != image).any())
    assert changed >= 5


def test_the_skull_goes_and_the_lesion_stays():
    image, mask = head()
    stripped = strip_skull(image, mask, np.random.default_rng(0))
    assert (stripped[image == 220] > 0).mean() < 0.2
    np.testing.assert_array_equal(stripped[mask > 0], image[mask > 0])


def test_a_lesion_at_the_edge_keeps_its_skull():
    image, mask = head(lesion=False)
    cv2.circle(mask, (64, 12), 6, 255, -1)
    np.testing.assert_array_equal(strip_skull(image, mask, np.random.default_rng(0)), image)
