"""Any finding against none, for networks with healthy classes, and where to draw the line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.bootstrap import Array, Estimate, Resamples
from training.config import TrainConfig
from training.metrics import auroc, binary
from training.report import OperatingPoint

SENSITIVITY = 0.98


def findings(
    config: TrainConfig,
    probs: Array,
    labels: NDArray[np.int64],
    drawn: Resamples,
    known_probs: Array,
    known_labels: NDArray[np.int64],
) -> tuple[dict[str, Estimate], tuple[OperatingPoint, ...]]:
    """Any finding against none: metrics at the most probable class, and operating points chosen on `known`.

    Args:
        config: names the healthy classes; without any there is nothing to measure.
        probs: calibrated probabilities `[N, K]` of the reported part.
        labels: its labels `[N]`.
        drawn: resamples of the N images.
        known_probs: calibrated probabilities `[M, K]` of the validation part.
        known_labels: its labels `[M]`.
    """
    if not config.healthy:
        return {}, ()
    healthy = healthy_classes(config)
    present, score = ~np.isin(labels, healthy), finding_score(probs, healthy)
    called = finding_called(probs, healthy)
    metrics = binary(present, called, drawn, "finding_")
    area = auroc(present, score, drawn)
    if area is not None:
        metrics["finding_auroc"] = area
    points = [
        OperatingPoint(
            name="argmax", threshold=None, chosen_by="the most probable class", measured=binary(present, called, drawn)
        )
    ]
    chosen = thresholds(~np.isin(known_labels, healthy), finding_score(known_probs, healthy))
    for name, (threshold, why) in chosen.items():
        measured = binary(present, score >= threshold, drawn)
        points.append(OperatingPoint(name=name, threshold=threshold, chosen_by=why, measured=measured))
    return metrics, tuple(points)


def thresholds(present: NDArray[np.bool_], scores: Array) -> dict[str, tuple[float, str]]:
    """Thresholds on scores `[M]`, 0..1, by name with the reason; none where one of the two classes is missing.

    Each lies halfway between the lowest score that is still called and the next below it.
    """
    if not 0 < present.sum() < len(present):
        return {}
    false_rate, true_rate, steps = roc_curve(present, scores, drop_intermediate=False)
    best = int(np.argmax(true_rate - false_rate))
    enough = int(np.argmax(true_rate >= SENSITIVITY))
    known = np.unique(scores)

    def halfway(step: int) -> float:
        lower = known[known < steps[step]]
        return float(np.clip((steps[step] + (lower[-1] if len(lower) else 0.0)) / 2, 0, 1))

    return {
        "youden": (halfway(best), "largest sensitivity plus specificity on the validation part (Youden 1950)"),
        "sensitive": (halfway(enough), f"highest threshold with sensitivity of {SENSITIVITY} on the validation part"),
    }


def healthy_classes(config: TrainConfig) -> NDArray[np.int64]:
    """Numbers of the classes whose images show no finding."""
    return np.array([config.classes.index(name) for name in config.healthy], np.int64)


def finding_score(probs: Array, healthy: NDArray[np.int64]) -> Array:
    """Probability of any class that is not healthy, `[N]`, of probabilities `[N, K]`."""
    return np.clip(1 - probs[:, healthy].sum(axis=1), 0, 1)


def finding_called(probs: Array, healthy: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the most probable class, of probabilities or logits `[N, K]`, is none of the healthy ones."""
    return ~np.isin(probs.argmax(axis=1), healthy)
