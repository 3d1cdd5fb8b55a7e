"""From the logits of slices to what is said of their series.

A finding fills few slices of a series, so the slices are not averaged all: those that speak the most against "healthy"
are, `strongest` of them, and the mean of their calibrated logits is calibrated once more for series (Platt scaling,
fitted by `python -m export.pooling` on patients or blocks that training did not see):

    evidence[s] = log of the odds of any label that is not healthy
    pooled      = scale * mean over the strongest slices of (logits / temperature)  +  offset for labels not healthy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.manifest import Manifest, SeriesPooling
from service.series.answer import SeriesFinding
from service.types import Float

Array = NDArray[np.float64]
NOT_CALIBRATED = "the model was not calibrated for series: the answer is that of the strongest slice"
_PLAIN = SeriesPooling(strongest=1, scale=1, offset=0, fitted_on="", groups=0)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a model says of a series.

    Attributes:
        label: the most probable class.
        probabilities: calibrated, by class, summing to 1.
        findings: in the manifest's order.
        strongest: indices of the slices that were pooled, strongest first.
        notes: what a reader must know of the pooling.
    """

    label: str
    probabilities: dict[str, float]
    findings: tuple[SeriesFinding, ...]
    strongest: tuple[int, ...]
    notes: tuple[str, ...]


def pool(logits: Float, manifest: Manifest) -> Pooled:
    """Pool the slices of a series.

    Where the manifest has no pooling, the strongest slice speaks for the series: it may call too much, but a finding
    in one slice only is not averaged away. Such an answer carries `NOT_CALIBRATED` among its notes.

    Args:
        logits: float32 `[S, K]`, before the temperature, S >= 1.
        manifest: of the model that gave them.

    Raises:
        ValueError: there is no slice, or not one logit for each label.
    """
    names = manifest.class_names
    if logits.ndim != 2 or not len(logits) or logits.shape[1] != len(names):
        raise ValueError("pooling needs one row of logits for each slice, and a slice at least")
    pooling = manifest.series_pooling or _PLAIN
    scaled = logits.astype(np.float64) / manifest.temperature
    unhealthy = [place for place, label in enumerate(manifest.labels) if not label.healthy]
    chosen = strongest(scaled, unhealthy, pooling.strongest)
    row = calibrated(scaled[chosen].mean(axis=0), unhealthy, pooling.scale, pooling.offset)
    probabilities = dict(zip(names, _softmax(row[None])[0].tolist(), strict=True))
    return Pooled(
        label=max(probabilities, key=probabilities.__getitem__),
        probabilities=probabilities,
        findings=_findings(manifest, probabilities, _softmax(scaled), chosen),
        strongest=tuple(chosen.tolist()),
        notes=() if manifest.series_pooling else (NOT_CALIBRATED,),
    )


def strongest(scaled: Array, unhealthy: Sequence[int], count: int) -> NDArray[np.int64]:
    """The slices that speak the most for any of the labels `unhealthy`, strongest first.

    Of those that speak alike the one with the larger logits comes first, label by label, and only of equals the
    earlier: the order of the slices does not change what is pooled.

    Where no label is healthy, or all are, there is nothing to rank by, and every slice is taken.

    Args:
        scaled: float64 `[S, K]`, logits divided by the temperature.
        unhealthy: numbers of the labels.
        count: how many slices to take, if there are as many.
    """
    healthy = sorted(set(range(scaled.shape[1])) - set(unhealthy))
    if not healthy or not unhealthy:
        return np.arange(len(scaled))
    evidence = _log_sum(scaled[:, list(unhealthy)]) - _log_sum(scaled[:, healthy])
    return np.lexsort((*-scaled.T[::-1], -evidence))[:count]  # by evidence, then by the labels in their order


def calibrated(pooled: Array, unhealthy: Sequence[int], scale: float, offset: float) -> Array:
    """Pooled logits `[..., K]`, scaled, with the offset on those of the labels that are not healthy."""
    shifted = pooled * scale
    shifted[..., list(unhealthy)] += offset
    return shifted


def _findings(
    manifest: Manifest, pooled: dict[str, float], slices: Array, chosen: NDArray[np.int64]
) -> tuple[SeriesFinding, ...]:
    """Findings of the series; `pooled` by class, `slices` float64 `[S, K]`: calibrated probabilities."""
    findings: list[SeriesFinding] = []
    for finding in manifest.findings:
        threshold = finding.operating_point.threshold
        probability = min(1.0, sum(pooled[name] for name in finding.labels))
        present = probability >= threshold
        each = slices[:, [manifest.class_names.index(name) for name in finding.labels]].sum(axis=1)
        carriers = _carriers(each, threshold, chosen) if present else ()
        findings.append(SeriesFinding(finding.name, probability, present, carriers))
    return tuple(findings)


def _carriers(each: Array, threshold: float, chosen: NDArray[np.int64]) -> tuple[int, ...]:
    """Slices whose own probability `[S]` reaches the threshold, strongest first; the pooled ones where none does."""
    order = np.argsort(-each, kind="stable")
    own = order[each[order] >= threshold]
    return tuple((own if len(own) else chosen).tolist())


def _softmax(logits: Array) -> Array:
    """Softmax of each row `[S, K]`."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _log_sum(values: Array) -> Array:
    """Logarithm of the sum of exponentials of each row `[S, K]`: `[S]`."""
    top = values.max(axis=1)
    return top + np.log(np.exp(values - top[:, None]).sum(axis=1))
