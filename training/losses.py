"""What a network is trained on: labels, where the lesion is, and a teacher's opinion."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import TrainConfig
from training.models.network import Network


class LesionDecoder(nn.Module):
    """A small feature pyramid that segments the lesion during training; never exported.

    Lin et al., "Feature Pyramid Networks", CVPR 2017. Output `[N, K + 1, h, w]` on the
    finest grid: background, then the classes.
    """

    def __init__(self, widths: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, classes + 1, 3, padding=1)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Feature maps, finest first, to segmentation logits."""
        grid = pyramid[0].shape[-2:]
        total = torch.stack(
            [
                functional.interpolate(lateral(features), size=grid, mode="bilinear", align_corners=False)
                for lateral, features in zip(self.lateral, pyramid, strict=True)
            ]
        ).sum(dim=0)
        return self.last(functional.relu(self.norm(total)))


@dataclass
class Batch:
    """What one step learns from.

    `images` float `[N, 1, S, S]` 0..255; `labels` int64 `[N]`; `masks` float `[N, 1, S, S]` 0..255;
    `has_mask` bool `[N]`: the mask is known (it may be empty); `teacher` logits `[N, K]` or None;
    `teacher_pyramid` its feature maps, finest first, empty without a teacher.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    teacher: Tensor | None = None
    teacher_pyramid: list[Tensor] = field(default_factory=list[Tensor])


class Student(nn.Module):
    """A network with the training-only decoder; its forward pass gives the losses, each a scalar."""

    def __init__(self, network: Network, config: TrainConfig, teacher_widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        pairs = zip(network.widths, teacher_widths, strict=False)
        self.projections = nn.ModuleList(nn.Conv2d(own, theirs, 1) for own, theirs in pairs)
        self.network = network
        self.config = config
        self.decoder = LesionDecoder(network.widths, len(config.classes)) if config.lesion_weight else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses by name."""
        config, network = self.config, self.network
        pyramid = network.pyramid(network.normalise(batch.images))
        logits = network.classify(pyramid[-1]).float()
        losses = {"label": functional.cross_entropy(logits, batch.labels, label_smoothing=config.label_smoothing)}
        if batch.teacher is not None and config.teacher is not None:
            distance = distillation(logits, batch.teacher, config.teacher.temperature)
            losses = {
                "label": losses["label"] * (1 - config.teacher.weight),
                "teacher": distance * config.teacher.weight,
            }
            projected = [projection(features) for projection, features in zip(self.projections, pyramid, strict=True)]
            losses["features"] = config.teacher.feature_weight * feature_distance(projected, batch.teacher_pyramid)
        if config.map_weight:
            maps = network.maps(pyramid[-1]).float()
            losses["map"] = config.map_weight * map_loss(maps, batch)
        if self.decoder is not None:
            losses["lesion"] = config.lesion_weight * lesion_loss(self.decoder(pyramid).float(), batch)
        return losses


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened probabilities, times the squared temperature (Hinton et al., 2015)."""
    student = functional.log_softmax(logits / temperature, dim=1)
    target = functional.log_softmax(teacher.float() / temperature, dim=1)
    return functional.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2


def feature_distance(own: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean over levels and cells of one minus the cosine between feature vectors.

    Both are lists of `[N, D_i, h, w]` with the same D_i; the teacher's are brought to the student's grid.
    """
    distances: list[Tensor] = []
    for mine, theirs in zip(own, teacher, strict=True):
        target = functional.interpolate(theirs, size=mine.shape[-2:], mode="area")
        distances.append(1 - functional.cosine_similarity(mine.float(), target.float(), dim=1).mean())
    return torch.stack(distances).mean()


def map_loss(maps: Tensor, batch: Batch) -> Tensor:
    """Minus log of the share that lies inside the lesion of a spatial softmax over the label's map.

    Only images with a lesion count. A cell counts by the share of it that the mask covers, relative to the
    best-covered cell, so that a lesion smaller than a cell can still be hit.
    """
    covered = functional.adaptive_avg_pool2d(batch.masks, (maps.shape[-2], maps.shape[-1])).flatten(1) / 255
    best = covered.amax(dim=1)
    lesions = batch.has_mask & (best > 1e-3)
    if not lesions.any():
        return maps.new_zeros(())
    own = maps[torch.arange(len(maps)), batch.labels].flatten(1)[lesions]
    weight = (covered / best.clamp(min=1e-3).unsqueeze(1))[lesions]
    inside = (own.softmax(dim=1) * weight).sum(dim=1)
    return -torch.log(inside.clamp(min=1e-6)).mean()


def lesion_loss(segmentation: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of every cell against background or the image's class; lesion cells weigh four times."""
    if not batch.has_mask.any():
        return segmentation.new_zeros(())
    grid = (segmentation.shape[-2], segmentation.shape[-1])
    inside = functional.adaptive_avg_pool2d(batch.masks, grid).squeeze(1) > 127
    target = torch.where(inside, (batch.labels + 1).view(-1, 1, 1), 0)[batch.has_mask]
    weight = segmentation.new_full((segmentation.shape[1],), 4.0)
    weight[0] = 1.0
    return functional.cross_entropy(segmentation[batch.has_mask], target, weight=weight)
