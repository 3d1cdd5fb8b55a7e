"""FastSHAP (Jethani et al., ICLR 2022): Shapley values from a trained explainer, in the prediction's own pass."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Method, Predict, Question, Terms
from service.explainers.masking import baseline_image
from service.types import Attribution

NAME = "fastshap"
BASELINE = "blur"


def explain(question: Question, terms: Terms) -> Explaining:
    """Approximate Shapley values of the cells of a grid, against the blurred baseline that it was trained with.

    The explainer is a small head on the model's own feature maps: the graph's output `shapley` `[K, g, g]`. What its
    values miss of the target's logit less its logit on the baseline (one more image through the model) is spread
    evenly over the cells, as in the paper (additive efficient normalisation).

    Values float32 `[g, g]`, logits. `additivity_error` is what was missing before it was spread.
    """
    (empty,) = question.scores((yield Predict(baseline_image(question.image, BASELINE)[None])))
    total = question.scores(question.outputs.logits) - empty
    maps = np.tensordot(question.target_weights(), question.outputs.more["shapley"], axes=1)
    missing = total - maps.sum(axis=(1, 2))
    values = maps + (missing / maps[0].size)[:, None, None]
    return [
        Attribution(
            NAME,
            target,
            values[row].astype(np.float32),
            exact=False,
            parameters={"baseline": BASELINE},
            evaluations=1,
            additivity_error=abs(float(missing[row])),
        )
        for row, target in enumerate(question.targets)
    ]


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="Shapley values of grid cells as a trained explainer guesses them, in logits; "
    "their sum is the target's logit less that of the blurred image",
    source="Jethani et al., ICLR 2022, arXiv:2107.07436",
    explain=explain,
    outputs=frozenset({"shapley"}),
    budget=1,
)
