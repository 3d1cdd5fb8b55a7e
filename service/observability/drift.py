"""What of the answers shows that images have changed: classes, confidence, energy, assessments. Counted, never judged.

`deploy/prometheus/rules/drift.yml` compares the last hours with the days before; docs/runbook.md says what a shift
means.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Literal

from prometheus_client import Counter, Histogram

from service.observability.metrics import ASSESSMENTS, CONFIDENCE, ENERGY, OUT_OF_KIND, PREDICTIONS


@cache
def _metrics(model: str, label: str) -> tuple[Counter, Histogram, Histogram]:
    return PREDICTIONS.labels(model, label), CONFIDENCE.labels(model), ENERGY.labels(model)


def expect_predictions(model: str, labels: Collection[str]) -> None:
    """Let every class be there from the start, so that the first image of it counts as one more."""
    for label in labels:
        _metrics(model, label)


def observe_prediction(model: str, label: str, confidence: float, energy: float) -> None:
    """One image's answer.

    Args:
        model: id of the bundle.
        label: the most probable class.
        confidence: its calibrated probability, 0..1.
        energy: see `service.prediction.energy`.
    """
    predicted, confidences, energies = _metrics(model, label)
    predicted.inc()
    confidences.observe(confidence)
    energies.observe(energy)


def observe_assessment(model: str, assessable: Literal["yes", "doubtful", "no"]) -> None:
    """Count an image by whether the model could answer for it."""
    ASSESSMENTS.labels(model, assessable).inc()


def observe_unlike(sign: Literal["modality", "content", "colour"]) -> None:
    """An image is answered with a warning that it is of another kind than the model's."""
    OUT_OF_KIND.labels(sign).inc()
