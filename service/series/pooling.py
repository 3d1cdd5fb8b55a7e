"""From the logits of slices to what is said of their series.

A finding fills few slices of a series, so the slices are not averaged all: those that speak the most against "healthy"
are, `strongest` of them, and the mean of their calibrated logits is calibrated once more for series (Platt scaling,
fitted by `python -m export.pooling` on patients or blocks that training did not see). Limits that were fitted on series
decide, where there are any, and those of images otherwise:

    evidence[s] = log of the odds of any label that is not healthy
    pooled      = scale * mean over the strongest slices of (logits / temperature)  +  offset for labels not healthy

Slices that are not assessable do not count: a neck or the top of a skull may look like anything. Where none counts,
nothing is decided. A series has one verdict: where the most probable class says otherwise than the limits of a finding,
the finding is not decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.assessment import Assessment, decide, prediction_set
from service.manifest import Finding, Manifest, SeriesPooling
from service.series.answer import SeriesFinding
from service.types import Assessable, Decision, Float

Array = NDArray[np.float64]
NOT_CALIBRATED = "the model was not calibrated for series: the answer is that of the strongest slice"
LIMITS_OF_IMAGES = "the limits of {what} were fitted on single images: their error rate for a series is not known"
_PLAIN = SeriesPooling(strongest=1, scale=1, offset=0, fitted_on="", groups=0)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a model says of a series.

    Attributes:
        label: the most probable class.
        probabilities: calibrated, by class, summing to 1.
        findings: in the manifest's order.
        strongest: indices of the slices that were pooled, strongest first.
        assessment: of the series.
        prediction_set: see `service.assessment.prediction_set`.
        notes: what a reader must know of the pooling.
    """

    label: str
    probabilities: dict[str, float]
    findings: tuple[SeriesFinding, ...]
    strongest: tuple[int, ...]
    assessment: Assessment
    prediction_set: tuple[str, ...] | None
    notes: tuple[str, ...]


def pool(logits: Float, manifest: Manifest, assessments: Sequence[Assessment] | None = None) -> Pooled:
    """Pool the slices of a series.

    Where the manifest has no pooling, the strongest slice speaks for the series: it may call too much, but a finding
    in one slice only is not averaged away. Such an answer carries `NOT_CALIBRATED` among its notes.

    Args:
        logits: float32 `[S, K]`, before the temperature, S >= 1.
        manifest: of the model that gave them.
        assessments: of the slices; None: all count.

    Raises:
        ValueError: there is no slice, or not one logit for each label.
    """
    names = manifest.class_names
    if logits.ndim != 2 or not len(logits) or logits.shape[1] != len(names):
        raise ValueError("pooling needs one row of logits for each slice, and a slice at least")
    assessments = assessments or [Assessment()] * len(logits)
    pooling = manifest.series_pooling or _PLAIN
    scaled = logits.astype(np.float64) / manifest.temperature
    unhealthy = [place for place, label in enumerate(manifest.labels) if not label.healthy]
    counted = np.flatnonzero([one.assessable != "no" for one in assessments])
    places = counted if len(counted) else np.arange(len(scaled))  # there are numbers, but no decision
    chosen = places[strongest(scaled[places], unhealthy, pooling.strongest)]
    row = calibrated(scaled[chosen].mean(axis=0), unhealthy, pooling.scale, pooling.offset)
    probabilities = dict(zip(names, _softmax(row[None])[0].tolist(), strict=True))
    assessment = _assessment([assessments[place] for place in (chosen if len(counted) else places).tolist()])
    return Pooled(
        label=max(probabilities, key=probabilities.__getitem__),
        probabilities=probabilities,
        findings=_findings(manifest, probabilities, _softmax(scaled), chosen, places, assessment.assessable),
        strongest=tuple(chosen.tolist()),
        assessment=assessment,
        prediction_set=prediction_set(probabilities, assessment.assessable, manifest.conformal),
        notes=_notes(manifest, assessments, len(counted)),
    )


def _assessment(resting_on: Sequence[Assessment]) -> Assessment:
    """The assessment of a series by the slices that its answer rests on: by the worst of them."""
    found = {one.assessable for one in resting_on}
    worst: Assessable = "no" if "no" in found else "doubtful" if "doubtful" in found else "yes"
    reasons = tuple(dict.fromkeys(reason for one in resting_on for reason in one.reasons))
    return Assessment(worst, reasons, all(one.type_assessed for one in resting_on))


def _notes(manifest: Manifest, assessments: Sequence[Assessment], counted: int) -> tuple[str, ...]:
    notes = [] if manifest.series_pooling else [NOT_CALIBRATED]
    if manifest.conformal:
        own = manifest.series_pooling is not None and manifest.series_pooling.findings
        notes.append(LIMITS_OF_IMAGES.format(what="the prediction set" if own else "decisions"))
    if 0 < counted < len(assessments):
        left = [one for one in assessments if one.assessable == "no"]
        reasons = dict.fromkeys(reason for one in left for reason in one.reasons)
        share = f"{len(left)} of {len(assessments)} slices"
        notes.append(f"{share} are not assessable and do not count: {'; '.join(reasons)}")
    return tuple(notes)


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
    manifest: Manifest,
    pooled: dict[str, float],
    slices: Array,
    chosen: NDArray[np.int64],
    places: NDArray[np.int64],
    assessable: Assessable,
) -> tuple[SeriesFinding, ...]:
    """Findings of the series.

    Args:
        manifest: of the model.
        pooled: probabilities by class.
        slices: float64 `[S, K]`: calibrated probabilities.
        chosen: the slices that were pooled.
        places: the slices that count.
        assessable: of the series.
    """
    findings: list[SeriesFinding] = []
    for finding in manifest.findings:
        threshold = finding.operating_point.threshold
        probability = min(1.0, sum(pooled[name] for name in finding.labels))
        decision = _decision(finding, probability, pooled, manifest, assessable)
        each = slices[:, [manifest.class_names.index(name) for name in finding.labels]].sum(axis=1)
        carried = decision in ("present", "not decided")
        carriers = _carriers(each, threshold, chosen, places) if carried else ()
        findings.append(SeriesFinding(finding.name, probability, decision, carriers))
    return tuple(findings)


def _decision(
    finding: Finding, probability: float, pooled: dict[str, float], manifest: Manifest, assessable: Assessable
) -> Decision:
    decision = decide(finding, probability, assessable, manifest.series_limits)
    likelier = "present" if max(pooled, key=pooled.__getitem__) in finding.labels else "absent"
    return "not decided" if decision in ("present", "absent") and decision != likelier else decision


def _carriers(each: Array, threshold: float, chosen: NDArray[np.int64], places: NDArray[np.int64]) -> tuple[int, ...]:
    """Of `places` those whose own probability `[S]` reaches the threshold, strongest first; else the pooled ones."""
    order = places[np.argsort(-each[places], kind="stable")]
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
