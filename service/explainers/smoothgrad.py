"""SmoothGrad (Smilkov et al., 2017)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Explaining, Method, Question, Terms, differentiated
from service.explainers.sampling import RunningMean
from service.types import Attribution, Stopped

NAME = "smoothgrad"
NOISE = 0.1  # of the image's range: standard deviation
_ROUND = 8  # samples asked for at once


def explain(question: Question, terms: Terms) -> Explaining:
    """The mean gradient of the target's logit over noisy copies of the image (10 % of its range).

    Values float32 `[H, W]`, logits per grey level, signed, with half-widths of their 95 % interval.
    """
    image = question.image.astype(np.float32)
    found: list[Attribution] = []
    for row, target in enumerate(question.targets):
        random = np.random.default_rng(terms.options.seed)
        weights = question.target_weights()[row : row + 1]
        mean = RunningMean(image.shape)
        stopped: Stopped = "complete"
        while mean.count < terms.budget:
            count = min(_ROUND, terms.budget - mean.count)
            noise = random.normal(0, NOISE * float(np.ptp(image)), (count, *image.shape)).astype(np.float32)
            mean.add((yield from differentiated(image + noise, np.repeat(weights, count, axis=0), terms)))
            if terms.expired() and mean.count < terms.budget:
                stopped = "deadline"
                break
        found.append(
            Attribution(
                NAME,
                target,
                mean.value,
                exact=False,
                parameters={"samples": mean.count, "noise": NOISE, "seed": terms.options.seed},
                evaluations=mean.count,
                interval=mean.half_width,
                stopped=stopped,
            )
        )
    return found


METHOD = Method(
    name=NAME,
    exact=False,
    meaning="mean gradient of the target's logit over noisy copies of the image, in logits per grey level",
    unit="logit per grey level",
    source="Smilkov et al. 2017, arXiv:1706.03825",
    explain=explain,
    gradients=True,
    budget=25,
    per_target=True,
)
