"""RISE (Petsiuk et al., BMVC 2018)."""

from __future__ import annotations

import cv2
import numpy as np

from service.explainers.base import Explaining, Method, Predict, Question, Terms
from service.explainers.masking import baseline_image
from service.types import Attribution, Float, Grey8, Stopped

NAME = "rise"
GRID = 7
SHOWN = 0.5
_ROUND = 64  # masks asked for at once
_FIRST = 128  # below, a deadline is too short


def explain(question: Question, terms: Terms) -> Explaining:
    """How much higher the target's logit is, on average, when a pixel is shown than it is over all masks.

    Random 7 x 7 grids, each cell shown with probability 1/2, grown smoothly and shifted by less than a cell. The
    authors' map is the mean of score times mask over the probability; here the mean score is taken off first, which
    they do not do: it leaves the order of pixels and gives the values a sign.

    Values float32 `[H, W]`, logits, with half-widths of their 95 % interval.
    """
    image, random = question.image, np.random.default_rng(terms.options.seed)
    hidden = baseline_image(image, terms.options.baseline)
    scores = np.zeros((0, len(question.targets)), np.float32)
    masks = np.zeros((0, *image.shape), np.float16)
    stopped: Stopped = "complete"
    while len(scores) < terms.budget:
        part = draw_masks(min(_ROUND, terms.budget - len(scores)), image.shape[0], random)
        found = question.scores((yield Predict(_blend(image, hidden, part))))
        scores, masks = np.concatenate([scores, found]), np.concatenate([masks, part.astype(np.float16)])
        if terms.expired() and _FIRST <= len(scores) < terms.budget:
            stopped = "deadline"
            break
    values, widths = saliency(masks.astype(np.float32), scores)
    return [
        Attribution(
            NAME,
            target,
            values[row],
            exact=False,
            parameters={"baseline": terms.options.baseline, "seed": terms.options.seed, "budget": terms.budget},
            evaluations=len(scores),
            interval=widths[row],
            stopped=stopped,
        )
        for row, target in enumerate(question.targets)
    ]


def draw_masks(count: int, side: int, random: np.random.Generator) -> Float:
    """Smooth random masks float32 `[count, side, side]`, 0..1."""
    cell = -(-side // GRID)
    grids = (random.random((count, GRID + 1, GRID + 1)) < SHOWN).astype(np.float32)
    shifts = random.integers(0, cell, (count, 2))
    masks = np.empty((count, side, side), np.float32)
    for row, (grid, (y, x)) in enumerate(zip(grids, shifts, strict=True)):
        large = cv2.resize(grid, ((GRID + 1) * cell, (GRID + 1) * cell), interpolation=cv2.INTER_LINEAR)
        masks[row] = np.asarray(large)[y : y + side, x : x + side]
    return masks


def saliency(masks: Float, scores: Float) -> tuple[Float, Float]:
    """The maps `[T, H, W]` of masks `[M, H, W]` and scores `[M, T]`, and their half-widths."""
    flat = masks.reshape(len(masks), -1)
    centred = (scores - scores.mean(axis=0)).astype(np.float32)
    shape = (scores.shape[1], *masks.shape[1:])
    mean = centred.T @ flat / (len(flat) * SHOWN)
    square = (centred**2).T @ flat**2 / (len(flat) * SHOWN**2)
    widths = 1.96 * np.sqrt(np.maximum(square - mean**2, 0) / len(flat))
    return mean.reshape(shape).astype(np.float32), widths.reshape(shape).astype(np.float32)


def _blend(image: Grey8, hidden: Grey8, masks: Float) -> Grey8:
    base = hidden.astype(np.float32)
    return np.rint(base + masks * (image.astype(np.float32) - base)).astype(np.uint8)


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="how much higher the target's logit is when the pixel is shown, over random masks",
    source="Petsiuk et al., BMVC 2018, arXiv:1806.07421",
    explain=explain,
    budget=1024,
)
