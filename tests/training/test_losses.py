from __future__ import annotations

import pytest
import torch

from service.types import PreprocessingSpec
from training.config import DataConfig, StageConfig, TrainConfig
from training.losses import (
    Batch,
    Student,
    cell_label_loss,
    cell_loss,
    covered_cells,
    finding_loss,
    label_loss,
    overlap_loss,
)
from training.models import build_opposed

HEALTHY = torch.tensor([False, False, True])


def corner(side: int = 32) -> torch.Tensor:
    """A lesion over the upper left of 4 x 4 cells."""
    mask = torch.zeros(1, 1, side, side)
    mask[..., : side // 4, : side // 4] = 255
    return mask


def test_the_finding_loss_asks_for_any_finding_and_not_for_which():
    logits = torch.tensor([[5.0, -5, 0], [-5, 5, 0], [-5, -5, 5]])
    right = torch.tensor([True, True, False])
    assert finding_loss(logits, right, HEALTHY) < 0.1
    assert finding_loss(logits, ~right, HEALTHY) > 3


def test_the_label_loss_counts_only_known_labels():
    logits = torch.tensor([[4.0, 0], [4, 0]])
    labels = torch.tensor([0, 1])
    assert label_loss(logits, labels, torch.tensor([True, False])) < 0.1
    assert label_loss(logits, labels, torch.tensor([True, True])) > 1
    assert label_loss(logits, labels, torch.tensor([False, False])) == 0


def test_cells_that_a_lesion_half_covers_are_left_out():
    mask = corner()
    mask[..., :8, 8:9] = 255  # an eighth of the next cell
    inside, sure = covered_cells(mask, (4, 4))
    assert inside[0].sum() == 1 and inside[0, 0, 0]
    assert not sure[0, 0, 1]
    assert sure[0].sum() == 15


def test_a_lesion_smaller_than_a_cell_has_its_best_cell():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 9:11, 17:20] = 255
    inside, _ = covered_cells(mask, (4, 4))
    assert inside[0].nonzero().tolist() == [[1, 2]]
    assert not covered_cells(torch.zeros(1, 1, 32, 32), (4, 4))[0].any()


def test_the_cell_loss_falls_where_the_evidence_lies_in_the_lesion():
    inside, sure = covered_cells(corner(), (4, 4))
    right = torch.where(inside, 6.0, -6.0)
    assert cell_loss(right, inside, sure) < 0.01
    assert cell_loss(-right, inside, sure) > 3
    assert cell_loss(-right, inside, torch.zeros_like(sure)) == 0


def test_the_cells_of_a_lesion_say_which_label():
    inside, _ = covered_cells(corner(), (4, 4))
    cells = torch.zeros(1, 2, 4, 4)
    cells[:, 1, 0, 0] = 8
    assert cell_label_loss(cells, torch.tensor([1]), inside) < 0.01
    assert cell_label_loss(cells, torch.tensor([0]), inside) > 3


def test_the_overlap_loss_is_one_less_dice():
    share = torch.zeros(1, 4, 4)
    share[0, 0, 0] = 1
    right = torch.where(share > 0.5, 20.0, -20.0)
    drawn = torch.tensor([True])
    assert overlap_loss(right, share, drawn) == pytest.approx(0, abs=1e-3)
    assert overlap_loss(-right, share, drawn) > 0.9
    assert overlap_loss(-right, share, ~drawn) == 0


def config() -> TrainConfig:
    return TrainConfig(
        network="oculusnet",
        classes=("one", "other", "none"),
        healthy=("none",),
        data=DataConfig(adapter="class_folders", split="split.json"),
        preprocessing=PreprocessingSpec(field_of_view="frame", size=64),
        stages=(StageConfig(size=64, epochs=1),),
    )


def test_what_speaks_for_a_finding_speaks_against_the_healthy_class():
    torch.manual_seed(0)
    network = build_opposed("oculusnet", 3, [2])
    maps = network.maps(torch.rand(2, 64, 5, 5))
    torch.testing.assert_close(maps[:, 2], -maps[:, :2].mean(dim=1))


def test_images_without_a_known_outline_teach_no_cell():
    torch.manual_seed(0)
    student = Student(build_opposed("oculusnet", 3, [2]), config()).eval()
    images = torch.rand(2, 1, 64, 64) * 255
    masks = corner(64).repeat(2, 1, 1, 1)

    def losses(outlined: bool) -> dict[str, torch.Tensor]:
        labels = torch.tensor([0, 1])
        known = torch.tensor([outlined, outlined])
        with torch.no_grad():
            return student(Batch(images, labels, torch.tensor([True, True]), masks, known))

    without, with_outline = losses(False), losses(True)
    assert without["cells"] == without["cell_label"] == without["overlap"] == without["sparse"] == 0
    assert with_outline["cells"] > 0
    assert with_outline["overlap"] > 0
    assert without["finding"] == with_outline["finding"]
    assert without["label"] == with_outline["label"] > 0
