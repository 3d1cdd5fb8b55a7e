"""Gradient SHAP: expected gradients (Erion et al., Nature Machine Intelligence 2021)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Method, Predict, Question, Terms, differentiated
from service.explainers.masking import baseline_image
from service.explainers.sampling import RunningMean
from service.types import Attribution, Float, Stopped

NAME = "gradient_shap"
NOISE = 0.05 * 255  # grey levels, standard deviation
_ROUND = 8  # samples asked for at once


def explain(question: Question, terms: Terms) -> Explaining:
    """The gradient at random points between a baseline and the noisy image, times their difference, averaged.

    The baselines are the blurred, the mean and the black one, in equal shares, whatever `baseline` says; the noise has
    a standard deviation of 5 % of the grey range.

    Values float32 `[H, W]`, logits, with half-widths of their 95 % interval. Their sum estimates the target's logit
    less its mean over the baselines; the error of that estimate is stated.
    """
    image = question.image.astype(np.float32)
    hidden = np.stack([baseline_image(question.image, name) for name in ("blur", "mean", "black")])
    empty = question.scores((yield Predict(hidden))).mean(axis=0)
    total = question.scores(question.outputs.logits) - empty
    baselines = hidden.astype(np.float32)
    found: list[Attribution] = []
    for row, target in enumerate(question.targets):
        random = np.random.default_rng(terms.options.seed)
        weights = question.target_weights()[row : row + 1]
        mean = RunningMean(image.shape)
        stopped: Stopped = "complete"
        while mean.count < terms.budget:
            count = min(_ROUND, terms.budget - mean.count)
            chosen = baselines[(mean.count + np.arange(count)) % 3]
            shares = random.random((count, 1, 1), np.float32)
            noise = random.normal(0, NOISE, (count, *image.shape)).astype(np.float32)
            points, differences = path_points(image + noise, chosen, shares)
            gradients = yield from differentiated(points, np.repeat(weights, count, axis=0), terms)
            mean.add(gradients * differences[: len(gradients)])
            if terms.expired() and mean.count < terms.budget:
                stopped = "deadline"
                break
        values = mean.value
        found.append(
            Attribution(
                NAME,
                target,
                values,
                exact=False,
                parameters={"baseline": "blur, mean, black", "samples": mean.count, "seed": terms.options.seed},
                evaluations=3 + mean.count,
                additivity_error=abs(float(values.sum(dtype=np.float64) - total[row])),
                interval=mean.half_width,
                stopped=stopped,
            )
        )
    return found


def path_points(images: Float, baselines: Float, shares: Float) -> tuple[Float, Float]:
    """Points on the lines from `baselines` to `images` `[S, H, W]` at `shares` `[S, 1, 1]`, and the differences."""
    differences = images - baselines
    return np.asarray(baselines + shares * differences, np.float32), differences


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="expected gradient times difference from baselines, in logits",
    source="Erion et al., Nature Machine Intelligence 2021, arXiv:1906.10670",
    explain=explain,
    gradients=True,
    budget=32,
    per_target=True,
)
