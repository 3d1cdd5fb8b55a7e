"""A small conditional GAN for grey images.

DCGAN's strided convolutions (Radford et al., ICLR 2016) with class-conditional batch normalisation in the generator
(Dumoulin et al., ICLR 2017), spectral normalisation (Miyato et al., ICLR 2018) and a projection of the class (Miyato &
Koyama, ICLR 2018) in the discriminator.
"""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and offset are those of the image's class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.scale = nn.Embedding.from_pretrained(torch.ones(classes, width), freeze=False)
        self.offset = nn.Embedding.from_pretrained(torch.zeros(classes, width), freeze=False)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """`x` float `[N, C, H, W]`, labels int64 `[N]`."""
        return self.norm(x) * self.scale(labels)[:, :, None, None] + self.offset(labels)[:, :, None, None]


class Generator(nn.Module):
    """Noise `[N, latent]` and labels int64 `[N]` to images `[N, 1, size, size]`, -1 to 1."""

    def __init__(self, size: int, classes: int, width: int, latent: int) -> None:
        super().__init__()
        widths = _widths(size, width)[::-1]
        self.latent = latent
        self.first = nn.Linear(latent, 16 * widths[0])
        self.norms = nn.ModuleList(ConditionalNorm(w, classes) for w in widths)
        outs = (*widths[1:], 1)
        self.rises = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(widths, outs, strict=True))

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """One pass."""
        x = self.first(noise).view(len(noise), -1, 4, 4)
        for norm, rise in zip(self.norms, self.rises, strict=True):
            x = rise(functional.relu(norm(x, labels)))
        return torch.tanh(x)


class Discriminator(nn.Module):
    """Images `[N, 1, size, size]`, -1 to 1, and labels int64 `[N]` to scores `[N]`, high for what it takes as real."""

    def __init__(self, size: int, classes: int, width: int) -> None:
        super().__init__()
        widths = _widths(size, width)
        pairs = zip((1, *widths), widths, strict=False)
        self.falls = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairs)
        self.last = spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1))
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """One pass."""
        x = images
        for fall in (*self.falls, self.last):
            x = functional.leaky_relu(fall(x), 0.1)
        features = x.sum(dim=(2, 3))
        return self.score(features)[:, 0] + (self.projection(labels) * features).sum(dim=1)


def _widths(size: int, width: int) -> tuple[int, ...]:
    """Feature maps by level, from half the side down to 4 x 4.

    Raises:
        ValueError: the side is no power of two from 8 on.
    """
    levels = log2(size / 4)
    if levels != int(levels) or levels < 1:
        raise ValueError(f"the side {size} is none of 8, 16, 32, 64 and so on")
    return tuple(width * min(2**level, 8) for level in range(int(levels)))
