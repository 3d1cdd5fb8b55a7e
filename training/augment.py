"""Augmentation of prepared images, a batch at a time, reproducible from a generator.

All functions take and give float32 `[N, 1, H, W]`, pixels 0..255.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from service.validation import Strict


class Augmentation(Strict):
    """Strengths; a value of zero switches a step off.

    `rotation` in degrees; `shift` as a share of the side; `scale` lowest and highest zoom; `flip`,
    `coarsen` and `registration` are probabilities; `contrast` and `gamma` are the half-widths of the log2 of their
    factor; `noise` is the largest standard deviation in grey values.
    """

    rotation: float = 12.0
    shift: float = 0.06
    scale: tuple[float, float] = (0.85, 1.2)
    flip: float = 0.5
    contrast: float = 0.4
    gamma: float = 0.5
    noise: float = 8.0
    coarsen: float = 0.3
    registration: float = 0.0


def augment(images: Tensor, masks: Tensor, strengths: Augmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """Move images and masks alike, then change the images' grey values."""
    grid = _grid(images, strengths, generator)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    masks = functional.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = _coarsen(moved, strengths.coarsen, generator)
    moved = _grey_values(moved, strengths, generator)
    if strengths.registration > 0:
        moved = _registration_triangles(moved, strengths.registration, generator)
    return moved, masks


def blend(images: Tensor, probability: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix some images with another one of the batch (Zhang et al., "mixup", ICLR 2018).

    Returns:
        The images, and bool `[N]`: which of them are mixed. The other one's share is uniform between 0 and 1.
    """
    n = len(images)
    chosen = torch.rand(n, generator=generator) < probability
    share = torch.where(chosen, torch.rand(n, generator=generator), 0.0).view(n, 1, 1, 1)
    return images * (1 - share) + images[torch.randperm(n, generator=generator)] * share, chosen


def resized(images: Tensor, size: int) -> Tensor:
    """Shrink to `[N, 1, size, size]` by averaging over areas."""
    return images if images.shape[-1] == size else functional.interpolate(images, size=(size, size), mode="area")


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _grid(images: Tensor, strengths: Augmentation, generator: Generator) -> Tensor:
    n = len(images)
    angle = _uniform(n, -1, 1, generator) * math.radians(strengths.rotation)
    low, high = strengths.scale
    zoom = torch.exp(_uniform(n, math.log(low), math.log(high), generator))
    stretch = torch.exp(_uniform(n, -0.05, 0.05, generator))
    mirror = torch.where(torch.rand(n, generator=generator) < strengths.flip, -1.0, 1.0)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * 2 * strengths.shift
    cosine, sine = torch.cos(angle), torch.sin(angle)
    top = torch.stack([mirror * cosine / (zoom * stretch), -sine / zoom, shift[:, 0]], dim=1)
    bottom = torch.stack([mirror * sine / (zoom * stretch), cosine / zoom, shift[:, 1]], dim=1)
    theta = torch.stack([top, bottom], dim=1)
    return functional.affine_grid(theta, list(images.shape), align_corners=False)


def _grey_values(images: Tensor, strengths: Augmentation, generator: Generator) -> Tensor:
    n = len(images)

    def column(half_width: float) -> Tensor:
        return torch.exp2(_uniform(n, -half_width, half_width, generator)).view(n, 1, 1, 1)

    images = (images / 255).clamp(0, 1).pow(column(strengths.gamma)) * 255
    images = images * column(strengths.contrast)
    sigma = _uniform(n, 0, strengths.noise, generator).view(n, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator)
    return (images + sigma * noise).clamp(0, 255)


def _coarsen(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Lose resolution as a small or re-compressed source would."""
    chosen = torch.rand(len(images), generator=generator) < probability
    if not chosen.any():
        return images
    side = images.shape[-1]
    small = int(side * float(_uniform(1, 0.4, 0.8, generator)))
    coarse = functional.interpolate(images[chosen], size=(small, small), mode="area")
    images = images.clone()
    images[chosen] = functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return images


def _registration_triangles(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """White or black wedges at the upper or lower edge, as an OCT device leaves them after registration."""
    n, _, height, width = images.shape
    rows = torch.arange(height).view(1, height, 1)
    columns = torch.linspace(0, 1, width).view(1, 1, width)
    left, right = (torch.rand(n, generator=generator).view(n, 1, 1) * 0.25 * height for _ in range(2))
    edge = left * (1 - columns) + right * columns
    upper = torch.rand(n, generator=generator).view(n, 1, 1) < 0.5
    wedge = torch.where(upper, rows < edge, rows >= height - edge)
    chosen = torch.rand(n, generator=generator).view(n, 1, 1) < probability
    value = torch.where(torch.rand(n, generator=generator) < 0.5, 255.0, 0.0).view(n, 1, 1, 1)
    return torch.where((wedge & chosen).unsqueeze(1), value, images)
