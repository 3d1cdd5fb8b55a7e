"""How far an image is from those that a model knows, from what the model's own trunk makes of it.

`training.models.network.summary_of` makes a summary of an image. Up to four columns are computed from it:

1. `distance` knows own images only: the Mahalanobis distance within the directions in which they vary, together with
   the length of what lies outside of these (after ViM: Wang et al., "ViM: Out-of-distribution with virtual-logit
   matching", CVPR 2022). It finds what nobody thought of.
2. `foreign` is the logit of a regularised logistic regression of own images against foreign ones (outlier exposure:
   Hendrycks et al., ICLR 2019). It is sharper for kinds like those that it has seen.
3. `turned`, where there are turned images to fit it on, is the same of own images against turned ones.
4. `type`, where it is asked for, is that of images on which the finding's label can be judged against those on which
   it cannot.

In each, 0 is the median of the images that it holds for typical, 1 their 95th percentile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from service.types import Float

_DIRECTIONS = 64  # in which own summaries vary; what lies outside counts by its length
_IMAGES_A_DIRECTION = 4  # at least, so that its spread is known
_STRENGTH = 0.01  # inverse of the regularisation, as scikit-learn has it
_STEPS = 200  # of the fit
_TYPICAL = 0.95
Array = NDArray[np.float64]


class Familiarity(nn.Module):
    """Summaries float32 `[N, F]` to scores `[N, G]`: `distance`, `foreign`, and `turned` and `type` where there are.

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


def fit_familiarity(
    own: Float, foreign: Float, turned: Float | None = None, typed: Float | None = None, untyped: Float | None = None
) -> Familiarity:
    """Fit all scores on summaries of training images.

    Args:
        own: of images of the model's kind, float32 `[N, F]`.
        foreign: of other images, `[M, F]`.
        turned: of own images that were turned, `[T, F]`; None: there is no `turned`.
        typed: of images on which the finding's label can be judged, `[P, F]`; None, as `untyped`: there is no `type`.
        untyped: of images on which it cannot, `[Q, F]`.

    Raises:
        ValueError: one of them is too few, or only one of the last two is given.
    """
    if (typed is None) != (untyped is None):
        raise ValueError("a type score needs both images on which the label can be judged and on which it cannot")
    count = min(_DIRECTIONS, own.shape[1], len(own) // _IMAGES_A_DIRECTION)
    if count < 1 or not len(foreign):
        raise ValueError(f"a gate cannot be fitted on {len(own)} own and {len(foreign)} foreign images")
    centre, spread = own.mean(axis=0, dtype=np.float64), own.std(axis=0, dtype=np.float64)
    scale = 1 / (spread + 0.1 * float(np.median(spread)) + 1e-6)  # a feature that hardly varies is not to decide alone

    def apart(values: Float) -> Array:
        return (values - centre) * scale

    near = apart(own)
    pca = PCA(count, svd_solver="randomized", random_state=0).fit(near)
    basis = np.asarray(pca.components_, np.float64).T
    outside = ((near - near @ basis @ basis.T) ** 2).sum(axis=1)
    directions = [_direction(near, apart(foreign))]
    if turned is not None:
        directions.append(_direction(near, apart(turned)))
    if typed is not None and untyped is not None:
        directions.append(_direction(apart(typed), apart(untyped)))
    fitted = Familiarity(
        centre=centre,
        scale=scale,
        basis=basis,
        whiten=1 / np.sqrt(np.maximum(np.asarray(pca.explained_variance_, np.float64), 1e-6)),
        residual=1 / max(float(np.median(outside)), 1e-6),
        directions=np.stack(directions, axis=1),
        offset=np.zeros(1 + len(directions)),
        gain=np.ones(1 + len(directions)),
    )
    middle, high = np.quantile(_run(fitted.raw, own).astype(np.float64), [0.5, _TYPICAL], axis=0)
    if typed is not None:
        middle[-1], high[-1] = np.quantile(_run(fitted.raw, typed)[:, -1], [0.5, _TYPICAL])
    with torch.no_grad():
        fitted.get_buffer("offset").copy_(torch.from_numpy(middle))
        fitted.get_buffer("gain").copy_(torch.from_numpy(1 / np.maximum(high - middle, 1e-6)))
    return fitted.eval()


def familiarity_of(stored: Mapping[str, Tensor]) -> Familiarity:
    """The scores with the buffers that a graph stores, by name."""
    arrays = {name: tensor.numpy().astype(np.float64) for name, tensor in stored.items() if name != "residual"}
    return Familiarity(**arrays, residual=float(stored["residual"].item())).eval()


def scores_of(familiarity: Familiarity, summaries: Float) -> Float:
    """Score summaries `[N, F]`: float32 `[N, G]`."""
    return _run(familiarity, summaries)


def _run(score: Callable[[Tensor], Tensor], summaries: Float) -> Float:
    with torch.inference_mode():
        return np.asarray(score(torch.from_numpy(np.asarray(summaries, np.float32))).numpy(), np.float32)


def _direction(one: Array, other: Array) -> Array:
    """Find the direction `[F]` from the first of two kinds to the second, each as important as the other."""
    values, second = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    spread = values.std(axis=0) + 1e-6
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_STEPS, tol=1e-3)
    model.fit((values - values.mean(axis=0)) / spread, second)
    return np.asarray(model.coef_[0], np.float64) / spread
