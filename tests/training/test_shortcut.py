from __future__ import annotations

import numpy as np
import pytest

from training import shortcut
from training.bootstrap import draw

SIDE = 96
HEALTHY = np.array([1])


def head(spot: tuple[int, int] | None = None, background: int = 0, level: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A round head on a background, with a bright spot or none, and the spot's mask."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.where((y - 48) ** 2 + (x - 48) ** 2 < 38**2, level, background).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if spot is not None:
        mask[(y - spot[0]) ** 2 + (x - spot[1]) ** 2 < 25] = 255
        image[mask > 0] = 250
    return image, mask


def slices(background_of_healthy: int = 0) -> shortcut.Slices:
    random = np.random.default_rng(0)
    rows = [head((int(r), int(c))) for r, c in random.integers(30, 45, (12, 2))]
    rows += [head(None, background_of_healthy) for _ in range(12)]
    tumour = np.arange(24) < 12
    return shortcut.Slices(np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows]), tumour, tumour)


def looks_at_the_spot(images, _description):
    score = (images.reshape(len(images), -1).max(axis=1) > 240).astype(float)
    return np.stack([score, 1 - score], axis=1)


def looks_at_the_corner(images, _description):
    score = (images[:, 0, 0] < 5).astype(float)
    return np.stack([score, 1 - score], axis=1)


def measured(given: shortcut.Slices, classify) -> dict[str, float]:
    drawn = draw(np.arange(24), (~given.tumour).astype(np.int64), 50, seed=0)
    called = classify(given.images, "").argmax(axis=1) == 0
    found, counts = shortcut.measure(given, called, HEALTHY, classify, drawn)
    assert counts["removed/inpainted"] == counts["removed/control"] == 12
    return {name: estimate.value for name, estimate in found.items()}


def test_a_network_that_looks_at_tumours_has_no_shortcut():
    found = measured(slices(), looks_at_the_spot)
    assert found["removed/inpainted/called_tumour"] == 0.0
    assert found["removed/mirrored/called_tumour"] == 0.0
    assert found["removed/control/called_tumour"] == 1.0
    assert found["hidden/background/auroc"] == 0.5
    assert found["hidden/silhouette/auroc"] == 0.5


def test_a_network_that_looks_at_the_source_is_found_out():
    found = measured(slices(background_of_healthy=7), looks_at_the_corner)
    assert found["removed/inpainted/called_tumour"] == 1.0
    assert found["hidden/background/auroc"] == 1.0


def test_the_probe_finds_what_thumbnails_give_away():
    drawn = draw(np.arange(24), np.arange(24) // 12, 50, seed=0)
    alike = slices()
    other = shortcut.Slices(
        np.where(alike.tumour[:, None, None], alike.images, alike.images // 2),
        alike.masks,
        alike.has_mask,
        alike.tumour,
    )
    assert shortcut.probe(other, other, drawn)["probe/thumbnail/auroc"].value > 0.95
    one_class = shortcut.Slices(alike.images, alike.masks, alike.has_mask, np.ones(24, np.bool_))
    assert shortcut.probe(one_class, alike, drawn) == {}


def test_painting_over_removes_the_spot_and_nothing_far_from_it():
    image, mask = head((40, 40))
    area = shortcut.widened(mask)
    filled = shortcut.inpainted(image, area)
    assert filled[area].max() < 130
    np.testing.assert_array_equal(filled[~area], image[~area])


def test_mirroring_takes_the_other_side():
    image, mask = head((40, 30))
    filled = shortcut.mirrored(image, shortcut.widened(mask))
    assert filled is not None
    assert filled.max() < 130


@pytest.mark.parametrize("spot", [(48, 48), None])
def test_mirroring_is_impossible_on_the_midline(spot):
    image, mask = head(spot)
    area = shortcut.widened(mask)
    if spot is None:
        image = np.zeros_like(image)
    assert shortcut.mirrored(image, area) is None


def test_the_control_patch_lies_in_the_head_and_away_from_the_spot():
    image, mask = head((40, 40))
    area = shortcut.widened(mask)
    patch = shortcut.patch_elsewhere(image, area, np.random.default_rng(0))
    assert patch.sum() == area.sum()
    assert not (patch & area).any()
    assert shortcut.head_mask(image)[patch].all()


def test_what_hides_the_tumour_hides_it():
    with_spot, _ = head((40, 40))
    without, _ = head(None)
    np.testing.assert_array_equal(shortcut.background(with_spot), shortcut.background(without))
    assert np.abs(shortcut.silhouette(with_spot).astype(int) - shortcut.silhouette(without)).max() < 5
    assert len(np.unique(shortcut.thumbnail(np.full((SIDE, SIDE), 9, np.uint8)))) == 1
