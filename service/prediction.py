"""From logits to what is reported: calibrated probabilities, a label, findings and what is decided of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.assessment import decide, prediction_set
from service.manifest import Manifest
from service.types import Assessable, Decision, Float


@dataclass(frozen=True, slots=True)
class FindingResult:
    """A finding's calibrated probability 0..1, and what is decided of it."""

    name: str
    probability: float
    decision: Decision

    @property
    def present(self) -> bool:
        """Whether it is decided that the finding is present."""
        return self.decision == "present"


@dataclass(frozen=True, slots=True)
class Prediction:
    """`label` is the most probable class; `probabilities` by class, summing to 1; `prediction_set`: see there."""

    label: str
    probabilities: dict[str, float]
    findings: tuple[FindingResult, ...]
    prediction_set: tuple[str, ...] | None


def energy(logits: Float) -> float:
    """Energy score of one image's logits float32 `[K]`, -logsumexp (Liu et al., NeurIPS 2020, at temperature 1).

    Higher is less like the images that the model learned from; it is compared with its own past, not with a threshold.
    """
    largest = float(logits.max())
    return -largest - float(np.log(np.exp(logits.astype(np.float64) - largest).sum()))


def predict(logits: Float, manifest: Manifest, assessable: Assessable = "yes") -> Prediction:
    """Interpret the logits float32 `[K]` of one image.

    Probabilities are a softmax of logits divided by the manifest's temperature (Guo et al., ICML 2017). They are given
    for every image, decisions only where it is assessable.
    """
    scaled = logits.astype(np.float64) / manifest.temperature
    scaled = np.exp(scaled - scaled.max())
    probabilities = dict(zip(manifest.class_names, (scaled / scaled.sum()).tolist(), strict=True))
    findings = tuple(
        FindingResult(finding.name, probability, decide(finding, probability, assessable, manifest.image_limits))
        for finding in manifest.findings
        for probability in [min(1.0, sum(probabilities[name] for name in finding.labels))]
    )
    possible = prediction_set(probabilities, assessable, manifest.conformal)
    return Prediction(max(probabilities, key=probabilities.__getitem__), probabilities, findings, possible)
