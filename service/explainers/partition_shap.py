"""SHAP over image regions (Lundberg and Lee, NeurIPS 2017; Owen 1977): the method `shap`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.explainers.base import Explaining, Method, Predict, Question, Terms, predicted
from service.explainers.masking import baseline_image, field_of_view
from service.explainers.owen import owen_values
from service.types import Attribution, Float, Grey8

NAME = "shap"
FEWEST, MOST = 16, 64  # players
TOLERANCE = 0.05
_CELL = 8  # pixels: regions are unions of cells


def explain(question: Question, terms: Terms) -> Explaining:
    """Owen values of 16 regions of the field of view (more with a larger budget), halved where the evidence is.

    Values float32 `[H / 8, W / 8]`, logits: a region's value is spread evenly over its cells, and their sum is the
    target's logit less its logit on the baseline. See `service.explainers.owen` for the estimator and its interval.
    """
    image = question.image
    hidden = baseline_image(image, terms.options.baseline)
    (empty,) = question.scores((yield Predict(hidden[None])))
    total = question.scores(question.outputs.logits) - empty
    grey = _cells(image.astype(np.float32))
    asking = owen_values(
        _cells(field_of_view(image).astype(np.float32)) > 0,
        lambda cells: halves(cells, grey),
        total,
        players=players_for(terms.budget - 1),
        budget=terms.budget - 1,
        tolerance=TOLERANCE,
        expired=terms.expired,
        random=np.random.default_rng(terms.options.seed),
    )
    try:
        shown = next(asking)
        while True:
            shown = asking.send(question.scores((yield from predicted(_compose(image, hidden, shown), terms))))
    except StopIteration as ended:
        found = ended.value
    sizes = found.regions.sum(axis=(1, 2))[:, None]
    density = np.tensordot(found.regions.astype(np.float64), found.values / sizes, axes=(0, 0))
    widths = np.tensordot(found.regions.astype(np.float64), found.half_widths / sizes, axes=(0, 0))
    return [
        Attribution(
            NAME,
            target,
            density[..., row].astype(np.float32),
            exact=found.stopped == "complete",
            parameters={
                "baseline": terms.options.baseline,
                "players": len(found.regions),
                "seed": terms.options.seed,
                "budget": terms.budget,
            },
            evaluations=1 + found.evaluations,
            additivity_error=abs(float(density[..., row].astype(np.float32).sum() - total[row])),
            interval=widths[..., row].astype(np.float32),
            stopped=found.stopped,
        )
        for row, target in enumerate(question.targets)
    ]


def players_for(budget: int) -> int:
    """16, or as many more (in powers of two, up to 64) as the budget can value exactly in a balanced tree."""
    players = FEWEST
    while players < MOST and 2 * ((2 * players) ** 2 - 1) / 3 <= budget:
        players *= 2
    return players


def halves(cells: NDArray[np.bool_], grey: Float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Cut a region across its longer side, in the middle half, where the two parts are most alike within themselves.

    Args:
        cells: bool `[h, w]`.
        grey: the image's mean in each cell, float32 `[h, w]`.

    Returns:
        Both parts, or None where there is nothing left to cut.
    """
    rows, columns = np.nonzero(cells)
    if len(rows) < 2:
        return None
    along = rows if np.ptp(rows) >= np.ptp(columns) else columns
    order = np.argsort(along, kind="stable")
    place, values = along[order], grey[rows, columns][order].astype(np.float64)
    count = np.arange(1, len(values))
    sums = values.cumsum()[:-1]
    within = (values**2).sum() - sums**2 / count - (values.sum() - sums) ** 2 / (len(values) - count)
    possible = place[1:] > place[:-1]
    if not possible.any():
        return None
    middle = possible & (count >= len(values) / 4) & (count <= len(values) * 3 / 4)
    cut = int(np.argmin(np.where(middle if middle.any() else possible, within, np.inf)))
    first = np.zeros_like(cells)
    first[rows[order][: cut + 1], columns[order][: cut + 1]] = True
    return first, cells & ~first


def _cells(image: Float) -> Float:
    """Mean over cells of 8 x 8 pixels."""
    height, width = (side // _CELL for side in image.shape)
    blocks = image[: height * _CELL, : width * _CELL].reshape(height, _CELL, width, _CELL)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _compose(image: Grey8, hidden: Grey8, shown: NDArray[np.bool_]) -> Grey8:
    large = np.ones((len(shown), *image.shape), np.bool_)  # what no cell covers is never hidden
    grown = shown.repeat(_CELL, axis=1).repeat(_CELL, axis=2)
    large[:, : grown.shape[1], : grown.shape[2]] = grown
    return np.where(large, image, hidden)


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="Owen values of image regions, in logits; their sum is the target's logit less that of the baseline",
    source="Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874; Owen 1977",
    explain=explain,
    budget=256,
)
