"""Gradient SHAP: expected gradients (Erion et al., Nature Machine Intelligence 2021)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Gradient, Method, Predict, Question, Terms
from service.explainers.masking import baseline_image
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
    image, random = question.image.astype(np.float32), np.random.default_rng(terms.options.seed)
    hidden = np.stack([baseline_image(question.image, name) for name in ("blur", "mean", "black")])
    empty = question.scores((yield Predict(hidden))).mean(axis=0)
    total = question.scores(question.outputs.logits) - empty
    samples = terms.budget
    chosen = hidden[np.arange(samples) % 3].astype(np.float32)
    shares = random.random((samples, 1, 1), np.float32)
    noise = random.normal(0, NOISE, (samples, *image.shape)).astype(np.float32)
    found: list[Attribution] = []
    for row, target in enumerate(question.targets):
        weights = question.target_weights()[row : row + 1]
        products = np.zeros((0, *image.shape), np.float32)
        stopped: Stopped = "complete"
        while len(products) < samples:
            rows = slice(len(products), len(products) + _ROUND)
            points, differences = path_points(image + noise[rows], chosen[rows], shares[rows])
            gradients = yield Gradient(points, np.repeat(weights, len(points), axis=0))
            products = np.concatenate([products, gradients * differences])
            if terms.expired() and len(products) < samples:
                stopped = "deadline"
                break
        values = products.mean(axis=0, dtype=np.float32)
        widths = 1.96 * products.std(axis=0, ddof=1) / np.sqrt(len(products)) if len(products) > 1 else None
        found.append(
            Attribution(
                NAME,
                target,
                values,
                exact=False,
                parameters={"baseline": "blur, mean, black", "samples": len(products), "seed": terms.options.seed},
                evaluations=3 + len(products),
                additivity_error=abs(float(values.sum(dtype=np.float64) - total[row])),
                interval=widths,
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
