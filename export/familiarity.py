"""How far an image is from those that a model knows, from what the model's own trunk makes of it.

The summary of an image is the mean of its feature maps. Three columns are computed from it:

1. `distance` knows own images only: the Mahalanobis distance within the directions in which they vary, together with
   the length of what lies outside of these (after ViM: Wang et al., "ViM: Out-of-distribution with virtual-logit
   matching", CVPR 2022). It finds what nobody thought of.
2. `foreign` is the logit of a regularised logistic regression of own images against foreign ones (outlier exposure:
   Hendrycks et al., ICLR 2019). It is sharper for kinds like those that it has seen.
3. `type`, where it is asked for, is that of images on which the finding's label can be judged against those on which
   it cannot.

In each, 0 is the median of the images that it holds for typical, 1 their 95th percentile.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

VARIANCE = 0.9  # of own summaries, within the directions that are kept
_MOST_DIRECTIONS = 256
_STRENGTH = 0.01  # inverse of the regularisation, as scikit-learn has it
_TYPICAL = 0.95
Array = NDArray[np.float64]


class Familiarity(nn.Module):
    """Summaries float32 `[N, F]` to scores `[N, G]`: `distance`, `foreign`, and `type` where there is one.

    Args:
        centre: mean of own summaries, `[F]`.
        scale: their spread in each feature is 1 after the multiplication with it, `[F]`.
        basis: orthonormal directions in which own summaries vary, `[F, D]`.
        whiten: makes their spread 1 in each direction, `[D]`.
        residual: makes the median length of what lies outside of the directions 1.
        directions: of the linear scores, `[F, G - 1]`.
        offset: of each score, `[G]`.
        gain: of each score after the offset, `[G]`.

    What has two axes is rounded to half precision here already, so that storing it changes nothing.
    """

    def __init__(
        self,
        *,
        centre: Array,
        scale: Array,
        basis: Array,
        whiten: Array,
        residual: float,
        directions: Array,
        offset: Array,
        gain: Array,
    ) -> None:
        super().__init__()
        for name, values in {"centre": centre, "scale": scale, "whiten": whiten}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))
        for name, values in {"basis": basis, "directions": directions}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float16).astype(np.float32)))
        self.register_buffer("residual", torch.tensor([residual], dtype=torch.float32))
        for name, values in {"offset": offset, "gain": gain}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))

    def forward(self, summary: Tensor) -> Tensor:
        """Score each image."""
        return (self.raw(summary) - self.get_buffer("offset")) * self.get_buffer("gain")

    def raw(self, summary: Tensor) -> Tensor:
        """Score each image, not standardised."""
        basis = self.get_buffer("basis")
        apart = (summary - self.get_buffer("centre")) * self.get_buffer("scale")
        within = apart @ basis
        outside = (apart - within @ basis.T).square().sum(dim=1, keepdim=True) * self.get_buffer("residual")
        distance = ((within * self.get_buffer("whiten")).square().mean(dim=1, keepdim=True) + outside).sqrt()
        return torch.cat([distance, apart @ self.get_buffer("directions")], dim=1)
