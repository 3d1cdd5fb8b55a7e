"""What the networks have in common: grey input, evidence maps, global average pooling, one linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

GREY_MEAN, GREY_STD = 0.22, 0.20  # of prepared pixels scaled to 0..1; brain MRI and OCT lie close to each other


EVIDENCE_WIDTH, _NECK_WIDTH = 64, 96
LITTLE = -3.0  # evidence before softplus, to begin with


class Network(nn.Module):
    """A classifier whose maps decide: evidence maps at stride 8, global average pooling, one linear layer.

    A subclass makes the trunk and implements `pyramid`; `widths` are the channels of what that returns. With
    `A = evidence(pyramid(x))`, which is never negative, the class activation map `cam_c = sum_d W[c, d] A_d` satisfies
    `mean(cam_c) + b_c = logit_c` (Zhou et al., CVPR 2016). A network with another head overrides `classify`, and `maps`
    where it is to be measured by its maps.
    """

    widths: tuple[int, ...]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.neck: nn.Module = Neck(self.widths)
        self.head = nn.Linear(EVIDENCE_WIDTH, classes)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps, finest (stride 8) first. `x` float `[N, 1, H, W]`, normalised; `[N, widths[i], h_i, w_i]`."""
        raise NotImplementedError

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """Start from the weights of a network pre-trained elsewhere; raises ValueError where they do not fit."""
        raise NotImplementedError

    def normalise(self, pixels: Tensor) -> Tensor:
        """Prepared pixels 0..255, any dtype, `[N, 1, H, W]`, to the range that the network is trained on."""
        return (pixels.float() * (1 / 255) - GREY_MEAN) / GREY_STD

    def evidence(self, pyramid: list[Tensor]) -> Tensor:
        """Evidence maps of a pyramid, `[N, D, h, w]` on its finest grid, 0 or more."""
        return self.neck(pyramid)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, K]` of prepared pixels 0..255 `[N, 1, H, W]`."""
        return self.classify(self.evidence(self.pyramid(self.normalise(pixels))))

    def classify(self, evidence: Tensor) -> Tensor:
        """Logits `[N, K]` of evidence maps `[N, D, h, w]`."""
        return self.head(evidence.mean(dim=(2, 3)))

    @property
    def pools_into_linear(self) -> bool:
        """Whether the head is pooling and one linear layer, so that its class activation maps are exact."""
        return type(self).classify is Network.classify

    def maps(self, evidence: Tensor) -> Tensor:
        """Class activation maps `[N, K, h, w]` of evidence maps `[N, D, h, w]`."""
        return torch.einsum("kd,ndhw->nkhw", self.head.weight, evidence)


class Neck(nn.Module):
    """Brings the trunk's feature maps together on the finest grid and makes evidence of them.

    A feature pyramid (Lin et al., "Feature Pyramid Networks", CVPR 2017) of one level. The last convolution goes
    through softplus, so that evidence is never negative and a small lesion can still carry a mean over all cells.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.upsample = upsample
        self.laterals = nn.ModuleList(nn.Conv2d(width, _NECK_WIDTH, 1) for width in widths)
        self.norm: nn.Module = nn.BatchNorm2d(_NECK_WIDTH)
        self.middle: nn.Module = nn.Conv2d(_NECK_WIDTH, _NECK_WIDTH, 3, padding=1, bias=False)
        self.settle: nn.Module = nn.BatchNorm2d(_NECK_WIDTH)
        self.last = nn.Conv2d(_NECK_WIDTH, EVIDENCE_WIDTH, 1)
        nn.init.constant_(cast(Tensor, self.last.bias), LITTLE)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Feature maps, finest first, to evidence `[N, D, h, w]`, 0 or more."""
        grid = (pyramid[0].shape[-2], pyramid[0].shape[-1])
        total = self.laterals[0](pyramid[0])
        for lateral, features in zip(list(self.laterals)[1:], pyramid[1:], strict=True):
            total = total + self.upsample(lateral(features), grid)
        hidden = functional.relu(self.settle(self.middle(functional.relu(self.norm(total)))))
        return functional.softplus(self.last(hidden))


def upsample(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample maps `[N, C, h, w]` to a grid, bilinearly, by cell centres."""
    return functional.interpolate(features, size=grid, mode="bilinear", align_corners=False)


class LastMaps(nn.Module):
    """The neck of a network without one: its last feature maps are its evidence."""

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Feature maps, finest first, to the last of them."""
        return pyramid[-1]


def summary_of(pyramid: list[Tensor]) -> Tensor:
    """Summarise what an image looks like to the trunk, float32 `[N, F]`, from its last two feature maps.

    Their spatial means, and of the last how much more the upper half shows than the lower: it tells which way up the
    image is.
    """
    means = [features.float().mean(dim=(2, 3)) for features in pyramid[-2:]]
    last = pyramid[-1].float()
    half = last.shape[2] // 2
    upright = last[:, :, :half].mean(dim=(2, 3)) - last[:, :, last.shape[2] - half :].mean(dim=(2, 3))
    return torch.cat([*means, upright], dim=1)


class Opposed(nn.Module):
    """A parametrisation of the head's weight: evidence speaks for findings, and as much against the healthy classes.

    The findings' rows are never negative, so that their maps are not either: what shows nothing adds nothing, however
    much of it there is, and a small lesion is not outweighed by healthy tissue. The map of a healthy class is minus the
    mean of the findings' maps.
    """

    healthy: Tensor

    def __init__(self, healthy: Sequence[int], classes: int) -> None:
        super().__init__()
        self.register_buffer("healthy", torch.tensor([c in healthy for c in range(classes)]), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight `[K, D]` from free parameters of the same shape; those of healthy rows are not used."""
        positive = functional.softplus(weight)
        return torch.where(self.healthy[:, None], -positive[~self.healthy].mean(dim=0, keepdim=True), positive)


def grey_stem(weight: Tensor) -> Tensor:
    """First convolution for grey input from one for colour `[D, 3, k, k]`: a grey image is its three channels alike."""
    return weight.sum(dim=1, keepdim=True)
