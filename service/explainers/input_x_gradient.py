"""Input times gradient (Shrikumar et al., 2016)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Gradient, Method, Question, Terms
from service.types import Attribution

NAME = "input_x_gradient"


def explain(question: Question, terms: Terms) -> Explaining:
    """The pixel's grey level times the gradient of the target's logit there.

    Values float32 `[H, W]`, logits; black pixels are 0.
    """
    image, weights = question.image.astype(np.float32), question.target_weights()
    gradients = yield Gradient(np.repeat(image[None], len(weights), axis=0), weights)
    return [
        Attribution(NAME, target, image * gradients[row], exact=True, evaluations=1)
        for row, target in enumerate(question.targets)
    ]


METHOD = Method(
    name=NAME,
    exact=True,
    meaning="grey level times gradient of the target's logit, in logits",
    source="Shrikumar et al. 2016, arXiv:1605.01713",
    explain=explain,
    gradients=True,
    budget=1,
    per_target=True,
)
