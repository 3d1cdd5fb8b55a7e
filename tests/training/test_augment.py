from __future__ import annotations

import pytest
import torch

from training.augment import Augmentation, augment, resized

STILL = Augmentation(rotation=0, shift=0, scale=(1, 1), flip=0, contrast=0, gamma=0, noise=0, coarsen=0, registration=0)


def picture(count: int = 4) -> torch.Tensor:
    return (torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 255).float()


def run(strengths: Augmentation, images: torch.Tensor, masks: torch.Tensor, seed: int = 0):
    return augment(images, masks, strengths, torch.Generator().manual_seed(seed))


def test_the_same_generator_gives_the_same_batch():
    one, _ = run(Augmentation(registration=0.5), picture(), picture())
    again, _ = run(Augmentation(registration=0.5), picture(), picture())
    other, _ = run(Augmentation(registration=0.5), picture(), picture(), seed=1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_pixels_stay_in_range():
    images, masks = run(Augmentation(contrast=2, gamma=2, noise=80, registration=1), picture(), picture())
    for values in (images, masks):
        assert values.min() >= 0
        assert values.max() <= 255


def test_masks_move_with_their_images():
    images = torch.zeros(8, 1, 64, 64)
    images[:, :, 20:30, 35:50] = 255
    strengths = STILL.model_copy(update={"rotation": 30.0, "shift": 0.1, "scale": (0.8, 1.2), "flip": 0.5})
    moved, masks = run(strengths, images, images.clone())
    assert torch.allclose(moved, masks, atol=1e-3)
    assert not torch.allclose(moved, images, atol=1)


def test_a_certain_flip_mirrors():
    images = picture()
    moved, _ = run(STILL.model_copy(update={"flip": 1.0}), images, images)
    # the small random stretch stays
    plain, _ = run(STILL, images.flip(-1), images)
    assert torch.allclose(moved, plain, atol=0.5)


def test_registration_wedges_touch_the_upper_or_lower_edge():
    images = torch.full((16, 1, 32, 32), 100.0)
    moved, _ = run(STILL.model_copy(update={"registration": 1.0}), images, images)
    changed = (moved - 100).abs() > 50
    assert changed.any(dim=-1).any(dim=-1).float().mean() > 0.8
    assert not changed[:, :, 12:20, 4:-4].any()  # the small stretch may show black columns at the sides


@pytest.mark.parametrize("size", [16, 32])
def test_resizing_keeps_the_mean(size):
    assert resized(picture(), size).mean().item() == pytest.approx(picture().mean().item(), rel=1e-4)


@pytest.mark.parametrize("step", ["tone", "bias_field", "speckle", "shadow", "cut", "coarsen"])
def test_each_step_changes_pixels_and_leaves_masks(step):
    images = picture()
    still, _ = run(STILL, images, images)
    changed, masks = run(STILL.model_copy(update={step: 1.0}), images, images)
    assert not torch.allclose(changed, still, atol=1)
    torch.testing.assert_close(masks, run(STILL, images, images)[1])


def test_a_tone_curve_keeps_the_order_of_grey_values():
    ramp = torch.linspace(0, 255, 256).view(1, 1, 16, 16).repeat(8, 1, 1, 1)
    curved, _ = run(STILL.model_copy(update={"tone": 1.0, "stretch": 0.0}), ramp, ramp)
    assert (curved.flatten(1).diff(dim=1) >= -1e-3).all()
    assert (curved - ramp).abs().max() > 5


def test_a_cut_blackens_an_edge():
    images = torch.full((32, 1, 32, 32), 100.0)
    cut, _ = run(STILL.model_copy(update={"cut": 1.0, "stretch": 0.0}), images, images)
    assert (cut[:, :, :19, 12:20] > 50).all()
    assert ((cut == 0).flatten(1).any(dim=1)).float().mean() > 0.7
