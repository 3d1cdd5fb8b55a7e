"""Integrated gradients (Sundararajan et al., ICML 2017)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Method, Predict, Question, Terms, differentiated, must_not_expire
from service.explainers.masking import baseline_image
from service.types import Attribution

NAME = "integrated_gradients"
_MOST = 256  # nodes: finding n of them takes n x n numbers, and more change nothing


def explain(question: Question, terms: Terms) -> Explaining:
    """The gradient, averaged on the straight line from the baseline to the image, times their difference.

    The integral is taken by Gauss-Legendre quadrature with as many nodes as the budget holds: 50 by default, 256 at
    most.

    Values float32 `[H, W]`, logits; they sum to the target's logit less its logit on the baseline, up to the error of
    the quadrature, which is stated.

    Raises:
        DeadlineTooShort: see `must_not_expire`.
    """
    image, weights = question.image.astype(np.float32), question.target_weights()
    hidden = baseline_image(question.image, terms.options.baseline)
    (empty,) = question.scores((yield Predict(hidden[None])))
    total = question.scores(question.outputs.logits) - empty
    steps = min(terms.budget, _MOST)
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    base = hidden.astype(np.float32)
    difference = image - base
    found: list[Attribution] = []
    for row, target in enumerate(question.targets):
        mean = np.zeros(image.shape)
        for start in range(0, steps, 16):
            must_not_expire(terms)
            places = (nodes[start : start + 16] + 1) / 2
            points = np.asarray(base + places[:, None, None] * difference, np.float32)
            gradients = yield from differentiated(points, np.repeat(weights[row : row + 1], len(points), axis=0), terms)
            if len(gradients) < len(points):
                must_not_expire(terms)
            mean += np.tensordot(shares[start : start + 16] / 2, gradients.astype(np.float64), axes=1)
        values = (mean * difference).astype(np.float32)
        found.append(
            Attribution(
                NAME,
                target,
                values,
                exact=False,
                parameters={"baseline": terms.options.baseline, "steps": steps},
                evaluations=1 + steps,
                additivity_error=abs(float(values.sum(dtype=np.float64) - total[row])),
            )
        )
    return found


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="gradient along the way from the baseline times the difference, in logits; "
    "the sum is the target's logit less that of the baseline",
    source="Sundararajan et al., ICML 2017, arXiv:1703.01365",
    explain=explain,
    gradients=True,
    budget=50,
    per_target=True,
)
