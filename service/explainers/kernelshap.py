"""Kernel SHAP over superpixels (Lundberg and Lee, NeurIPS 2017), sampled in pairs (Covert and Lee, AISTATS 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

import numpy as np
from numpy.typing import NDArray

from service.errors import BudgetTooSmall
from service.explainers.base import Explaining, Method, Predict, Question, Terms, must_not_expire, predicted
from service.explainers.masking import baseline_image, composed, spread, superpixels
from service.types import Attribution, Stopped

NAME = "kernelshap"
PLAYERS = 24
TOLERANCE = 0.1  # of the largest value: intervals that are narrower end the sampling
_ROUND = 64  # coalitions asked for at once
_GROUPS = 16  # of the jackknife
_T = 2.1314  # Student's t at 97.5 % for 15 degrees of freedom

Real = NDArray[np.float64]
Coalitions = NDArray[np.bool_]


def explain(question: Question, terms: Terms) -> Explaining:
    """Shapley values of about 24 superpixels by least squares on coalitions.

    All coalitions are enumerated where the budget holds them; otherwise they are drawn by the Shapley kernel in pairs
    of opposites, and the interval comes from a jackknife over groups of pairs.

    Values float32 `[H, W]`, logits, each player's spread evenly over its pixels; they sum to the target's logit less
    its logit on the baseline.

    Raises:
        BudgetTooSmall: fewer evaluations than it takes to tell the players apart.
        DeadlineTooShort: see `must_not_expire`.
    """
    image = question.image
    hidden, labels = baseline_image(image, terms.options.baseline), superpixels(image, PLAYERS)
    players, budget = int(labels.max()) + 1, terms.budget - 1
    every = 2**players - 2 <= budget
    if not every and budget < 2 * players:
        raise BudgetTooSmall(f"kernelshap needs a budget of {2 * players + 1} here, two evaluations for each player")
    (empty,) = question.scores((yield Predict(hidden[None]))).astype(np.float64)
    total = question.scores(question.outputs.logits).astype(np.float64) - empty
    rounds = _all(players) if every else _drawn(players, budget, np.random.default_rng(terms.options.seed))
    masks, scores = np.zeros((0, players), np.bool_), np.zeros((0, len(total)))
    stopped: Stopped = "complete" if every else "budget"
    for part in rounds:
        found = question.scores((yield from predicted(composed(image, hidden, labels, part), terms)))
        if len(found) < len(part):
            found = found[: len(found) // 2 * 2]  # whole pairs
        masks, scores = np.concatenate([masks, part[: len(found)]]), np.concatenate([scores, found - empty])
        if len(masks) < 2 * players or every:
            must_not_expire(terms)
        elif terms.expired():
            stopped = "deadline"
            break
        elif _tight(masks, scores, total):
            stopped = "converged"
            break
    weights = kernel(masks) if every else np.ones(len(masks))
    values = shapley_regression(masks, scores, total, weights)
    widths = np.zeros_like(values) if every else half_widths(masks, scores, total)
    parameters: dict[str, float | int | str] = {
        "baseline": terms.options.baseline,
        "players": players,
        "seed": terms.options.seed,
        "budget": terms.budget,
    }
    return [
        Attribution(
            NAME,
            target,
            spread(values[:, row], labels),
            exact=every,
            parameters=parameters,
            evaluations=1 + len(masks),
            additivity_error=abs(float(values[:, row].sum() - total[row])),
            interval=spread(widths[:, row], labels),
            stopped=stopped,
        )
        for row, target in enumerate(question.targets)
    ]


def shapley_regression(masks: Coalitions, scores: Real, total: Real, weights: Real) -> Real:
    """The additive function of the players nearest to the scores that is exact on everything and nothing.

    Args:
        masks: bool `[M, P]`.
        scores: f(coalition) - f(nothing), `[M, T]`.
        total: f(everything) - f(nothing), `[T]`.
        weights: of each coalition, `[M]`.

    Returns:
        The players' values, `[P, T]`, whose sum is `total`.
    """
    if masks.shape[1] == 1:
        return total[None]
    shown = masks.astype(np.float64)
    weighted = shown * (weights / weights.sum())[:, None]
    inverse = np.linalg.pinv(weighted.T @ shown, hermitian=True)
    free = inverse @ (weighted.T @ scores)
    along = inverse.sum(axis=1)
    return free - np.outer(along / along.sum(), free.sum(axis=0) - total)


def half_widths(masks: Coalitions, scores: Real, total: Real) -> Real:
    """Half-widths `[P, T]` of the values' 95 % intervals, by a jackknife over 16 groups of pairs of opposites."""
    groups = (np.arange(len(masks)) // 2) % _GROUPS
    left = [
        shapley_regression(
            masks[groups != group], scores[groups != group], total, np.ones(int((groups != group).sum()))
        )
        for group in range(_GROUPS)
    ]
    spread_out = np.stack(left)
    return _T * np.sqrt((_GROUPS - 1) / _GROUPS * ((spread_out - spread_out.mean(axis=0)) ** 2).sum(axis=0))


def kernel(masks: Coalitions) -> Real:
    """The Shapley kernel's weight of each coalition (Lundberg and Lee, theorem 2)."""
    players = masks.shape[1]
    return np.array([(players - 1) / (comb(players, s) * s * (players - s)) for s in masks.sum(axis=1).tolist()])


def _tight(masks: Coalitions, scores: Real, total: Real) -> bool:
    values = shapley_regression(masks, scores, total, np.ones(len(masks)))
    widths = half_widths(masks, scores, total)
    return bool((widths.max(axis=0) <= TOLERANCE * np.abs(values).max(axis=0)).all())


def _all(players: int) -> Iterator[Coalitions]:
    """Every coalition but all and none."""
    for start in range(1, 2**players - 1, _ROUND):
        numbers = np.arange(start, min(start + _ROUND, 2**players - 1))
        yield (numbers[:, None] >> np.arange(players)[None] & 1).astype(np.bool_)


def _drawn(players: int, budget: int, random: np.random.Generator) -> Iterator[Coalitions]:
    """Coalitions drawn by the Shapley kernel, each followed by its opposite."""
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    for start in range(0, budget - 1, _ROUND):
        count = min(_ROUND, budget - start) // 2
        drawn = random.choice(sizes, count, p=chances / chances.sum())
        ranks = random.random((count, players)).argsort(axis=1).argsort(axis=1)
        shown = ranks < drawn[:, None]
        yield np.stack([shown, ~shown], axis=1).reshape(2 * count, players)


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="Shapley values of superpixels, in logits; their sum is the target's logit less that of the baseline",
    source="Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874; Covert and Lee, AISTATS 2021, arXiv:2012.01536",
    explain=explain,
    budget=512,
)
