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

    Attributes:
        rotation: largest angle in degrees.
        shift: largest, as a share of the side.
        scale: lowest and highest zoom.
        stretch: half-width of the log of the ratio of both axes' zoom.
        flip: probability of left and right changing places.
        contrast: half-width of the log2 of a factor on all grey values.
        gamma: half-width of the log2 of an exponent.
        tone: probability of a random monotone curve of grey values, as another weighting or device gives.
        bias_field: largest strength of a smooth factor over the image, as a coil leaves it (log scale).
        noise: largest standard deviation in grey values.
        speckle: largest standard deviation of noise that grows with the grey value, as a share of it.
        coarsen: probability of a lower resolution.
        coarsest: lowest share of the side that it keeps.
        shadow: probability of darker columns, as vessels and lids cast in an OCT scan.
        cut: probability of black columns or rows at an edge, as of a scan that ends early.
        registration: probability of the wedges that an OCT device leaves after registration.
    """

    rotation: float = 12.0
    shift: float = 0.06
    scale: tuple[float, float] = (0.85, 1.2)
    stretch: float = 0.05
    flip: float = 0.5
    contrast: float = 0.4
    gamma: float = 0.5
    tone: float = 0.0
    bias_field: float = 0.0
    noise: float = 8.0
    speckle: float = 0.0
    coarsen: float = 0.3
    coarsest: float = 0.4
    shadow: float = 0.0
    cut: float = 0.0
    registration: float = 0.0


def augment(images: Tensor, masks: Tensor, strengths: Augmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """Move images and masks alike, then change the images' grey values."""
    grid = _grid(images, strengths, generator)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    masks = functional.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = _coarsen(moved, strengths, generator)
    moved = _grey_values(moved, strengths, generator)
    if strengths.shadow > 0:
        moved = _shadows(moved, strengths.shadow, generator)
    if strengths.cut > 0:
        moved = _cut(moved, strengths.cut, generator)
    if strengths.registration > 0:
        moved = _registration_triangles(moved, strengths.registration, generator)
    return moved, masks


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
    stretch = torch.exp(_uniform(n, -strengths.stretch, strengths.stretch, generator))
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

    images = (images / 255).clamp(0, 1).pow(column(strengths.gamma))
    if strengths.bias_field > 0:
        images = images * _bias_field(images, strengths.bias_field, generator)
    if strengths.tone > 0:
        images = _tone(images, strengths.tone, generator)
    images = images * column(strengths.contrast) * 255
    speckle = _uniform(n, 0, strengths.speckle, generator).view(n, 1, 1, 1)
    images = images * (1 + speckle * torch.randn(images.shape, generator=generator))
    sigma = _uniform(n, 0, 1, generator).square().view(n, 1, 1, 1) * strengths.noise
    noise = torch.randn(images.shape, generator=generator)
    return (images + sigma * noise).clamp(0, 255)


def _bias_field(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """A smooth factor `[N, 1, H, W]` around 1."""
    n = len(images)
    coarse = torch.randn(n, 1, 3, 3, generator=generator) * _uniform(n, 0, strength, generator).view(n, 1, 1, 1)
    size = (images.shape[-2], images.shape[-1])
    return torch.exp(functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True))


def _tone(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """A monotone curve through three random points for some images, values 0..1 and beyond."""
    images = images.clone()
    for row in torch.nonzero(torch.rand(len(images), generator=generator) < probability).flatten().tolist():
        inner = torch.rand(3, generator=generator).sort().values
        points = torch.cat([torch.zeros(1), inner, torch.ones(1)])
        place = images[row].clamp(0, 1) * 4
        lower = place.floor().clamp(max=3).long()
        images[row] = points[lower] + (points[lower + 1] - points[lower]) * (place - lower)
    return images


def _coarsen(images: Tensor, strengths: Augmentation, generator: Generator) -> Tensor:
    """Lose resolution as a small or re-compressed source would, each image by its own factor."""
    side = images.shape[-1]
    chosen = torch.rand(len(images), generator=generator) < strengths.coarsen
    if chosen.any():
        images = images.clone()
    for row in torch.nonzero(chosen).flatten().tolist():
        small = max(1, int(side * float(_uniform(1, strengths.coarsest, 0.85, generator))))
        coarse = functional.interpolate(images[row : row + 1], size=(small, small), mode="area")
        images[row] = functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)[0]
    return images


def _shadows(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Darken some columns."""
    n, _, _, width = images.shape
    columns = torch.arange(width).view(1, 1, 1, width)
    centre = _uniform(n, 0, width, generator).view(n, 1, 1, 1)
    reach = _uniform(n, 0.01, 0.12, generator).view(n, 1, 1, 1) * width
    depth = _uniform(n, 0.2, 0.9, generator) * (torch.rand(n, generator=generator) < probability)
    return images * (1 - depth.view(n, 1, 1, 1) * torch.exp(-(((columns - centre) / reach) ** 2)))


def _cut(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Black out a strip at the left or right, or at the lower edge."""
    n, _, height, width = images.shape
    share = _uniform(n, 0, 0.35, generator).view(n, 1, 1, 1) * (torch.rand(n, generator=generator) < probability).view(
        n, 1, 1, 1
    )
    edge = torch.randint(3, (n, 1, 1, 1), generator=generator)
    columns = torch.arange(width).view(1, 1, 1, width) / width
    rows = torch.arange(height).view(1, 1, height, 1) / height
    left, right, below = columns < share, columns >= 1 - share, rows >= 1 - share
    hidden = torch.where(edge == 0, left, torch.where(edge == 1, right, below))
    return torch.where(hidden, 0.0, images)


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
