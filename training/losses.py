"""What a network is trained on: is there a finding, which, and in which cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import TrainConfig
from training.models.network import Network

_INSIDE, _OUTSIDE = 0.25, 0.02  # share of a cell inside the lesion from which, and up to which, its answer is known
_INSIDE_WEIGHT = 6.0  # lesions are small: of a cell inside, against one outside
_SMOOTHING = 0.01
_LEAST = 1e-4  # of a class activation map, before its logarithm


@dataclass
class Batch:
    """What one step learns from.

    Attributes:
        images: float `[N, 1, S, S]`, 0..255.
        labels: int64 `[N]`, class numbers.
        typed: bool `[N]`: which class it is is known; otherwise only whether the class is a healthy one.
        masks: float `[N, 1, S, S]`, 0..255: inside the lesion.
        outlined: bool `[N]`: the mask is known (it may be empty).
    """

    images: Tensor
    labels: Tensor
    typed: Tensor
    masks: Tensor
    outlined: Tensor


class Student(nn.Module):
    """A network with what only training needs; its forward pass gives the losses, each a scalar.

    A cell's class activation map is, up to a factor that is learned, the odds that the cell lies inside a lesion. Odds
    far from a lesion are small in ratio, not only in difference, so that many of them do not outweigh, in the mean that
    decides, the few cells of a small lesion.
    """

    healthy: Tensor

    def __init__(self, network: Network, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.weights = config.losses
        self.register_buffer("healthy", torch.tensor([name in config.healthy for name in config.classes]))
        self.log_factor = nn.Parameter(torch.tensor(math.log(0.05)))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses by name."""
        network, weights = self.network, self.weights
        evidence = network.evidence(network.pyramid(network.normalise(batch.images))).float()
        maps = network.maps(evidence)
        logits = network.classify(evidence)
        finding = ~self.healthy[batch.labels]
        losses = {"finding": finding_loss(logits, finding, self.healthy)}
        known = batch.typed & finding
        own = _within_findings(batch.labels, self.healthy)
        losses["label"] = weights.label * label_loss(logits[:, ~self.healthy], own, known)
        evidenced = maps[:, ~self.healthy].clamp(min=_LEAST).log() + self.log_factor
        cells = torch.logsumexp(evidenced, dim=1)
        inside, sure = covered_cells(batch.masks, (maps.shape[-2], maps.shape[-1]))
        losses["cells"] = weights.cells * cell_loss(cells, inside, sure & batch.outlined[:, None, None])
        losses["cell_label"] = weights.cell_label * cell_label_loss(
            evidenced, own, inside & (known & batch.outlined)[:, None, None]
        )
        drawn = batch.outlined & finding
        share = functional.adaptive_avg_pool2d(batch.masks, (maps.shape[-2], maps.shape[-1]))[:, 0] / 255
        losses["overlap"] = weights.overlap * overlap_loss(cells, share, drawn)
        outside = ~inside | ~finding[:, None, None]
        outside = outside & (batch.outlined | ~finding)[:, None, None]
        positive = functional.relu(maps[:, ~self.healthy]) * outside[:, None]
        losses["sparse"] = weights.sparse * positive.mean()
        return losses


def finding_loss(logits: Tensor, finding: Tensor, healthy: Tensor) -> Tensor:
    """Binary cross-entropy of "any finding" against "none", from logits `[N, K]`; `finding` `[N]`, `healthy` `[K]`."""
    odds = torch.logsumexp(logits[:, ~healthy], dim=1) - torch.logsumexp(logits[:, healthy], dim=1)
    target = finding.float() * (1 - 2 * _SMOOTHING) + _SMOOTHING
    return functional.binary_cross_entropy_with_logits(odds, target)


def label_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy among the findings, `[N, F]`, of the images whose label is `known`; zero where none is."""
    if not known.any() or logits.shape[1] < 2:
        return logits.sum() * 0
    return functional.cross_entropy(logits[known], labels[known])


def covered_cells(masks: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which cells lie inside the lesion, and of which it can be said, both bool `[N, h, w]`.

    A lesion smaller than the share that counts as inside has its best covered cell.
    """
    covered = functional.adaptive_avg_pool2d(masks, grid)[:, 0] / 255
    best = covered.flatten(1).amax(dim=1)[:, None, None]
    small = (covered >= best * 0.999) & (best > _OUTSIDE / 2) & (best <= _INSIDE)
    inside = (covered > _INSIDE) | small
    return inside, inside | (covered <= _OUTSIDE)


def cell_loss(cells: Tensor, inside: Tensor, sure: Tensor) -> Tensor:
    """Weighted binary cross-entropy of cells' logits `[N, h, w]` against `inside`, where it is `sure`."""
    if not sure.any():
        return cells.sum() * 0
    weight = torch.where(inside, _INSIDE_WEIGHT, 1.0) * sure
    each = functional.binary_cross_entropy_with_logits(cells, inside.float(), reduction="none")
    return (each * weight).sum() / weight.sum()


def cell_label_loss(cells: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy among the findings, `[N, F, h, w]`, of the cells `inside` a lesion of a known label."""
    if not inside.any() or cells.shape[1] < 2:
        return cells.sum() * 0
    chosen = cells.permute(0, 2, 3, 1)[inside]
    return functional.cross_entropy(chosen, labels[:, None, None].expand_as(inside)[inside])


def overlap_loss(cells: Tensor, share: Tensor, drawn: Tensor) -> Tensor:
    """One less the soft Dice coefficient of cells `[N, h, w]` and the lesion's share of them, of the images `drawn`."""
    if not drawn.any():
        return cells.sum() * 0
    p, t = torch.sigmoid(cells[drawn]), share[drawn]
    return (1 - (2 * (p * t).sum(dim=(1, 2)) + 0.5) / (p.sum(dim=(1, 2)) + t.sum(dim=(1, 2)) + 0.5)).mean()


def _within_findings(labels: Tensor, healthy: Tensor) -> Tensor:
    """Class numbers among the findings alone, int64 `[N]`; 0 for a healthy class, where it is not used."""
    return ((~healthy).long().cumsum(dim=0) - 1).clamp(min=0)[labels]
