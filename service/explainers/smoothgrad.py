"""SmoothGrad (Smilkov et al., 2017)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Gradient, Method, Question, Terms
from service.types import Attribution, Stopped

NAME = "smoothgrad"
NOISE = 0.1  # of the image's range: standard deviation
_ROUND = 8  # samples asked for at once


def explain(question: Question, terms: Terms) -> Explaining:
    """The mean gradient of the target's logit over noisy copies of the image (10 % of its range).

    Values float32 `[H, W]`, logits per grey level, signed, with half-widths of their 95 % interval.
    """
    image, random = question.image.astype(np.float32), np.random.default_rng(terms.options.seed)
    noise = random.normal(0, NOISE * float(np.ptp(image)), (terms.budget, *image.shape)).astype(np.float32)
    found: list[Attribution] = []
    for row, target in enumerate(question.targets):
        weights = question.target_weights()[row : row + 1]
        gradients = np.zeros((0, *image.shape), np.float32)
        stopped: Stopped = "complete"
        while len(gradients) < len(noise):
            points = image + noise[len(gradients) : len(gradients) + _ROUND]
            gradients = np.concatenate([gradients, (yield Gradient(points, np.repeat(weights, len(points), axis=0)))])
            if terms.expired() and len(gradients) < len(noise):
                stopped = "deadline"
                break
        several = len(gradients) > 1
        found.append(
            Attribution(
                NAME,
                target,
                gradients.mean(axis=0),
                exact=False,
                parameters={"samples": len(gradients), "noise": NOISE, "seed": terms.options.seed},
                evaluations=len(gradients),
                interval=1.96 * gradients.std(axis=0, ddof=1) / np.sqrt(len(gradients)) if several else None,
                stopped=stopped,
            )
        )
    return found


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="mean gradient of the target's logit over noisy copies of the image, in logits per grey level",
    source="Smilkov et al. 2017, arXiv:1706.03825",
    explain=explain,
    gradients=True,
    budget=25,
    per_target=True,
)
