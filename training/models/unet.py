"""U-Net (Ronneberger et al., MICCAI 2015) for one grey channel and one kind of finding: MONAI's, with residual units.

Residual units after Kerfoot et al., "Left-Ventricle Quantification Using Residual U-Net", STACOM 2018, which is what
`monai.networks.nets.UNet` implements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.unet import UNet as MonaiUNet
from torch import Tensor, nn

from training.models.network import GREY_MEAN, GREY_STD

PRIOR = -3.0  # logit to begin with: most pixels are outside (Lin et al., "Focal loss", ICCV 2017)


class UNet(nn.Module):
    """Prepared pixels to a logit for every pixel.

    Args:
        channels: feature maps on each level, finest first; each level but the first halves the side, so that an input's
            side must be a multiple of 2 to the number of levels less one.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.net = MonaiUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=channels[0],
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=2,
            norm="batch",
            act="relu",
        )
        # MONAI's own last level would squeeze everything through one channel and a rectifier, which does not learn.
        last = nn.Conv2d(channels[0], 1, 1)
        if last.bias is not None:
            nn.init.constant_(last.bias, PRIOR)
        self.head = nn.Sequential(nn.BatchNorm2d(channels[0]), nn.ReLU(), last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, 1, H, W]` of prepared pixels 0..255, any dtype, `[N, 1, H, W]`."""
        return self.head(self.net((pixels.float() * (1 / 255) - GREY_MEAN) / GREY_STD))


class MaskGraph(nn.Module):
    """What is exported: images uint8 `[N, H, W, 1]` to probabilities float32 `[N, H, W]`, 0..1."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run the network and a sigmoid."""
        return torch.sigmoid(self.network(images.permute(0, 3, 1, 2)))[:, 0]
