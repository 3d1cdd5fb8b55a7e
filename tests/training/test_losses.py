from __future__ import annotations

import pytest
import torch

from training.losses import Batch, distillation, feature_distance, lesion_loss, map_loss


def batch(mask: torch.Tensor, label: int = 0, *, known: bool = True) -> Batch:
    return Batch(torch.zeros(1, 1, 8, 8), torch.tensor([label]), mask.view(1, 1, 8, 8), torch.tensor([known]))


def corner() -> torch.Tensor:
    mask = torch.zeros(8, 8)
    mask[:2, :2] = 255
    return mask


def test_the_map_loss_falls_when_the_map_points_at_the_lesion():
    maps = torch.zeros(1, 2, 4, 4)
    flat = map_loss(maps, batch(corner()))
    assert flat.item() == pytest.approx(torch.log(torch.tensor(16.0)).item(), abs=1e-5)
    maps[0, 0, 0, 0] = 5
    assert map_loss(maps, batch(corner())) < 0.5 * flat
    maps[0, 0, 3, 3] = 9
    assert map_loss(maps, batch(corner())) > flat


@pytest.mark.parametrize("known", [True, False])
def test_images_without_a_lesion_or_a_mask_do_not_count(known):
    mask = torch.zeros(8, 8) if known else corner()
    assert map_loss(torch.randn(1, 2, 4, 4), batch(mask, known=known)) == 0


def test_a_lesion_smaller_than_a_cell_can_still_be_hit():
    mask = torch.zeros(8, 8)
    mask[0, 0] = 255
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 0, 0] = 20
    assert map_loss(maps, batch(mask)) < 1e-3


def test_a_student_that_agrees_with_its_teacher_has_no_distance():
    logits = torch.randn(4, 3)
    assert distillation(logits, logits + 7, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation(logits, -logits, 2.0) > 0.1


def test_the_lesion_loss_wants_the_class_inside_and_background_outside():
    right = torch.full((1, 3, 4, 4), -9.0)
    right[0, 0] = 9
    right[0, :, 0, 0] = torch.tensor([-9.0, -9.0, 9.0])
    assert lesion_loss(right, batch(corner(), label=1)) < 1e-3
    assert lesion_loss(right, batch(corner(), label=0)) > 1
    assert lesion_loss(right, batch(corner(), label=1, known=False)) == 0


def test_feature_distance_is_that_of_directions_cell_by_cell():
    features = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    assert feature_distance([features * 3], [features]).item() == pytest.approx(0, abs=1e-6)
    assert feature_distance([-features], [features]).item() == pytest.approx(2, abs=1e-6)
    finer = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert feature_distance([features, features], [finer, features]).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="zip"):
        feature_distance([features], [])
