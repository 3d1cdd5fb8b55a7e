"""What the networks have in common: grey input, global average pooling, one linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GREY_MEAN, GREY_STD = 0.22, 0.20  # of prepared pixels scaled to 0..1; brain MRI and OCT lie close to each other


class Network(nn.Module):
    """A classifier whose head is global average pooling and one linear layer.

    Subclasses set `head` and implement `pyramid`. With `A = pyramid(x)[-1]`, the class activation map
    `cam_c = sum_d W[c, d] A_d` satisfies `mean(cam_c) + b_c = logit_c` (Zhou et al., CVPR 2016). A network with
    another head overrides `classify`, and `maps` where it is to be measured by its maps.
    """

    head: nn.Linear
    widths: tuple[int, ...]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps, finest first. `x` float `[N, 1, H, W]`, normalised; each `[N, widths[i], h_i, w_i]`."""
        raise NotImplementedError

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """Start from the weights of a network pre-trained elsewhere; raises ValueError where they do not fit."""
        raise NotImplementedError

    def normalise(self, pixels: Tensor) -> Tensor:
        """Prepared pixels 0..255, any dtype, `[N, 1, H, W]`, to the range that the network is trained on."""
        return (pixels.float() * (1 / 255) - GREY_MEAN) / GREY_STD

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, K]` of prepared pixels 0..255 `[N, 1, H, W]`."""
        return self.classify(self.pyramid(self.normalise(pixels))[-1])

    def classify(self, features: Tensor) -> Tensor:
        """Logits `[N, K]` of the last feature maps `[N, D, h, w]`."""
        return self.head(features.mean(dim=(2, 3)))

    @property
    def pools_into_linear(self) -> bool:
        """Whether the head is pooling and one linear layer, so that its class activation maps are exact."""
        return type(self).classify is Network.classify

    def maps(self, features: Tensor) -> Tensor:
        """Class activation maps `[N, K, h, w]` of the last feature maps `[N, D, h, w]`."""
        return torch.einsum("kd,ndhw->nkhw", self.head.weight, features)


def grey_stem(weight: Tensor) -> Tensor:
    """First convolution for grey input from one for colour `[D, 3, k, k]`: a grey image is its three channels alike."""
    return weight.sum(dim=1, keepdim=True)
