"""LIME (Ribeiro et al., KDD 2016): a linear model of the network around one image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.explainers.base import Explaining, Method, Question, Terms, must_not_expire, predicted
from service.explainers.masking import baseline_image, composed, superpixels
from service.types import Attribution, Float, Stopped

NAME = "lime"
PLAYERS = 40
KERNEL_WIDTH = 0.25
_ROUND = 64  # coalitions asked for at once
_FIRST = 48  # coalitions; below, a deadline is too short


def explain(question: Question, terms: Terms) -> Explaining:
    """Coefficients of a ridge regression of the target's logit on which of about 40 superpixels are shown.

    As in the authors' library: each superpixel is shown with probability 1/2, coalitions are weighted by
    exp(-d^2 / 0.25^2) under the root, d the cosine distance from the whole image, and the penalty is 1.

    Values float32 `[H, W]`: each pixel holds its superpixel's coefficient, logits. They do not sum to anything.

    Raises:
        DeadlineTooShort: it passed before the first 48 coalitions.
    """
    image, random = question.image, np.random.default_rng(terms.options.seed)
    hidden, labels = baseline_image(image, terms.options.baseline), superpixels(image, PLAYERS)
    players = int(labels.max()) + 1
    masks = random.integers(0, 2, (terms.budget, players)).astype(np.bool_)
    masks[0] = True
    scores = np.zeros((0, len(question.targets)), np.float32)
    stopped: Stopped = "complete"
    while len(scores) < len(masks):
        part = masks[len(scores) : len(scores) + _ROUND]
        found = question.scores((yield from predicted(composed(image, hidden, labels, part), terms)))
        scores = np.concatenate([scores, found])
        if len(scores) < min(_FIRST, len(masks)):
            must_not_expire(terms)
        elif len(scores) < len(masks) and terms.expired():
            stopped = "deadline"
            break
    coefficients = fit(masks[: len(scores)], scores)
    return [
        Attribution(
            NAME,
            target,
            np.append(coefficients[:, row], 0)[labels].astype(np.float32),
            exact=False,
            parameters={
                "baseline": terms.options.baseline,
                "players": players,
                "seed": terms.options.seed,
                "budget": terms.budget,
            },
            evaluations=len(scores),
            stopped=stopped,
        )
        for row, target in enumerate(question.targets)
    ]


def fit(masks: NDArray[np.bool_], scores: Float) -> NDArray[np.float64]:
    """The regression: coefficients `[P, T]` of scores `[M, T]` on coalitions bool `[M, P]`."""
    from sklearn.linear_model import Ridge

    shown = masks.astype(np.float64)
    distance = 1 - np.sqrt(shown.mean(axis=1))  # cosine, from the coalition of all
    weights = np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))
    found = Ridge(alpha=1.0).fit(shown, scores.astype(np.float64), sample_weight=weights)
    return np.asarray(found.coef_, np.float64).reshape(scores.shape[1], -1).T


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="coefficients of a local linear model on superpixels, in logits",
    source="Ribeiro et al., KDD 2016, arXiv:1602.04938",
    explain=explain,
    budget=512,
)
