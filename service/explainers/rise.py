"""RISE (Petsiuk et al., BMVC 2018)."""

from __future__ import annotations

import cv2
import numpy as np

from service.explainers.base import Explaining, Method, Question, Terms, must_not_expire, predicted
from service.explainers.masking import baseline_image
from service.types import Attribution, Float, Grey8, Stopped

NAME = "rise"
GRID = 7
SHOWN = 0.5
_ROUND = 64  # masks asked for at once
_FIRST = 32  # masks; below, a deadline is too short


def explain(question: Question, terms: Terms) -> Explaining:
    """How much higher the target's logit is, on average, when a pixel is shown than it is over all masks.

    Random 7 x 7 grids, each cell shown with probability 1/2, grown smoothly and shifted by less than a cell. The
    authors' map is the mean of score times mask over the probability; here the mean score is taken off first, which
    they do not do: it leaves the order of pixels and gives the values a sign.

    Values float32 `[H, W]`, logits, with half-widths of their 95 % interval: wide where a deadline left few masks.

    Raises:
        DeadlineTooShort: it passed before the first 32 masks.
    """
    image, random = question.image, np.random.default_rng(terms.options.seed)
    hidden = baseline_image(image, terms.options.baseline)
    sums = MaskSums(len(question.targets), image.shape)
    stopped: Stopped = "complete"
    while sums.count < terms.budget:
        masks = draw_masks(min(_ROUND, terms.budget - sums.count), image.shape[0], random)
        logits = yield from predicted(_blend(image, hidden, masks), terms)
        sums.add(masks[: len(logits)], question.scores(logits))
        if sums.count < min(_FIRST, terms.budget):
            must_not_expire(terms)
        elif sums.count < terms.budget and terms.expired():
            stopped = "deadline"
            break
    values, widths = sums.saliency()
    return [
        Attribution(
            NAME,
            target,
            values[row],
            exact=False,
            parameters={"baseline": terms.options.baseline, "seed": terms.options.seed, "budget": terms.budget},
            evaluations=sums.count,
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


class MaskSums:
    """What the saliency of T targets needs of masks and scores; no mask is kept."""

    def __init__(self, targets: int, shape: tuple[int, ...]) -> None:
        self.count = 0
        self._shape = (targets, *shape)
        pixels = int(np.prod(shape))
        self._scores = np.zeros((targets, 1))
        self._mask, self._mask2 = np.zeros(pixels), np.zeros(pixels)
        self._product, self._product2, self._cross = (np.zeros((targets, pixels)) for _ in range(3))

    def add(self, masks: Float, scores: Float) -> None:
        """Take in masks `[M, H, W]` and scores `[M, T]`."""
        flat, score = masks.reshape(len(masks), -1), scores.astype(np.float32).T
        square = flat**2
        self.count += len(masks)
        self._scores += score.sum(axis=1, keepdims=True)
        self._mask += flat.sum(axis=0)
        self._mask2 += square.sum(axis=0)
        self._product += score @ flat
        self._cross += score @ square
        self._product2 += score**2 @ square

    def saliency(self) -> tuple[Float, Float]:
        """The maps float32 `[T, H, W]`, and their half-widths."""
        mean = self._scores / self.count
        values = (self._product - mean * self._mask) / (self.count * SHOWN)
        square = self._product2 - 2 * mean * self._cross + mean**2 * self._mask2
        variance = np.maximum(square / (self.count * SHOWN**2) - values**2, 0) / self.count
        widths = 1.96 * np.sqrt(variance)
        return values.reshape(self._shape).astype(np.float32), widths.reshape(self._shape).astype(np.float32)


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
