"""Occlusion (Zeiler and Fergus, ECCV 2014)."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from service.errors import BudgetTooSmall
from service.explainers.base import Explaining, Method, Question, Terms, must_not_expire, predicted
from service.explainers.masking import baseline_image
from service.types import Attribution, Float, Grey8

NAME = "occlusion"
_ROUND = 64  # windows asked for at once


def explain(question: Question, terms: Terms) -> Explaining:
    """How far the target's logit falls when a window of the image is hidden, for windows all over it.

    The window is a seventh of the side and moves by half of itself: 169 windows; a smaller budget takes larger ones.
    Each pixel holds the mean over the windows that cover it.

    Values float32 `[H, W]`, logits. They do not sum to anything.

    Raises:
        BudgetTooSmall: it does not even hold nine windows.
        DeadlineTooShort: see `must_not_expire`.
    """
    image = question.image
    hidden = baseline_image(image, terms.options.baseline)
    window, step = window_for(image.shape[0], terms.budget)
    corners = places(image.shape[0], window, step)
    whole = question.scores(question.outputs.logits)
    fall = np.zeros((len(question.targets), *image.shape))
    cover = np.zeros(image.shape)
    windows = [(y, x) for y in corners for x in corners]
    for start in range(0, len(windows), _ROUND):
        must_not_expire(terms)
        part = windows[start : start + _ROUND]
        logits = yield from predicted(_occluded(image, hidden, part, window), terms)
        if len(logits) < len(part):
            must_not_expire(terms)
        found = whole - question.scores(logits)
        for (y, x), change in zip(part, found, strict=True):
            fall[:, y : y + window, x : x + window] += change[:, None, None]
            cover[y : y + window, x : x + window] += 1
    maps: Float = (fall / cover).astype(np.float32)
    return [
        Attribution(
            NAME,
            target,
            maps[row],
            exact=True,
            parameters={"baseline": terms.options.baseline, "window": window, "step": step},
            evaluations=len(windows),
        )
        for row, target in enumerate(question.targets)
    ]


def window_for(side: int, budget: int) -> tuple[int, int]:
    """Window and step in pixels, whose windows the budget holds; a seventh of the side, or larger.

    Raises:
        BudgetTooSmall: not even a window of half the side.
    """
    for parts in (7, 6, 5, 4, 3, 2):
        window = ceil(side / parts)
        step = ceil(window / 2)
        if len(places(side, window, step)) ** 2 <= budget:
            return window, step
    raise BudgetTooSmall("occlusion needs a budget of 9 or more")


def places(side: int, window: int, step: int) -> list[int]:
    """Where windows begin along one axis; the last one ends at the border."""
    return [min(start, side - window) for start in range(0, side - window + step, step)]


def _occluded(image: Grey8, hidden: Grey8, windows: list[tuple[int, int]], window: int) -> NDArray[np.uint8]:
    images = np.repeat(image[None], len(windows), axis=0)
    for row, (y, x) in enumerate(windows):
        images[row, y : y + window, x : x + window] = hidden[y : y + window, x : x + window]
    return images


METHOD = Method(
    name=NAME,
    exact=True,
    meaning="fall of the target's logit when the pixel's surroundings are hidden",
    source="Zeiler and Fergus, ECCV 2014, arXiv:1311.2901",
    explain=explain,
    budget=169,
)
