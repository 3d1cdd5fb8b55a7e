"""Whether an image can be assessed, and what may then be said of its findings: pure functions of what is known of it.

    header, pixels ── refusals ──┐
                                 ├── judge ──> Assessment ── decide ──> a decision for each finding
    the graph's output `gate` ───┘

The share of the frame that the model does not see (`Item.unseen`) is no reason by itself: it is air around a head,
padding, or what a device filled in. What counts is whether anything can be seen in what the model is given: the black
around a narrow strip counts there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.manifest import Bounds, Conformal, Finding, Kind, Manifest
from service.types import Assessable, Decision, Float, Frame, Grey8, Item

Sign = Literal["modality", "content", "colour"]
NOTHING_TO_SEE = "nothing can be seen in the image: nearly all of what the model is given has one grey level"
_WORDS: Mapping[Assessable, str] = {"no": "Not assessable", "doubtful": "Doubtful", "yes": "Note"}
_LEAST = 0.01  # share of the input that differs from its most common level; with less there is nothing to see


@dataclass(frozen=True, slots=True)
class Assessment:
    """Whether the model can answer for an image.

    Attributes:
        assessable: with `no` nothing is decided of its findings; `doubtful` is a warning.
        reasons: why not, why doubtful, and why the type is not assessed; for people, without values of the header.
        type_assessed: whether the label says which kind of finding it is.
        gate: what the graph's gate gave, by name of the score (`type`: of `TypeScore`); None without a gate.
    """

    assessable: Assessable = "yes"
    reasons: tuple[str, ...] = ()
    type_assessed: bool = True
    gate: Mapping[str, float] | None = None

    def warnings(self) -> list[str]:
        """Say the reasons to those who read warnings only."""
        relying = "; do not rely on the prediction" if self.assessable == "no" else ""
        return [f"{reason}{relying}" for reason in self.reasons]


def assess(frame: Frame, item: Item, gate: Float | None, manifest: Manifest) -> Assessment:
    """Assess one image.

    Args:
        frame: as it was decoded.
        item: what the model was given of it.
        gate: the graph's output, float32 `[G]`; None where the manifest has no gate.
        manifest: of the model.

    Raises:
        ValueError: the gate is not that of the manifest.
    """
    return judge(refusals(frame, item, manifest.kind), gate, manifest)


def refusals(frame: Frame, item: Item, kind: Kind) -> list[str]:
    """List the reasons against an image that need no model."""
    return [*unlike(frame, kind).values(), *([NOTHING_TO_SEE] if _is_empty(item.pixels) else [])]


def unlike(frame: Frame, kind: Kind) -> dict[Sign, str]:
    """List what speaks against a frame being of the kind that the model is for, by header and colour."""
    found: dict[Sign, str] = {}
    if frame.modality is not None and frame.modality not in kind.modalities:
        found["modality"] = f"the header gives another modality than {' or '.join(kind.modalities)}"
    if frame.content is not None and frame.content.kind != "colour":  # of which the pixels say more
        found["content"] = frame.content.reason
    if frame.colour > kind.largest_colour:
        found["colour"] = f"a colour image, and the model is for {kind.description}"
    return {sign: f"not of this model's kind: {reason}" for sign, reason in found.items()}


def _is_empty(pixels: Grey8) -> bool:
    """Tell whether nearly all pixels have the same level: a constant image, or hardly more than padding."""
    levels = np.bincount(pixels.ravel(), minlength=256)
    return int(levels.max()) > (1 - _LEAST) * pixels.size


def judge(refused: Sequence[str], gate: Float | None, manifest: Manifest) -> Assessment:
    """Judge an image by what is known without the model and by its gate; the worst decides.

    A value that is not a number refuses: what cannot be computed is not assessable.

    Args:
        refused: see `refusals`.
        gate: as in `assess`; so are `manifest` and what is raised.
        manifest: see there.
    """
    values = _gate_values(gate, manifest)
    if values is None or manifest.gate is None:
        return Assessment("no", tuple(refused), type_assessed=False) if refused else Assessment()
    scores, kind = manifest.gate.scores, manifest.gate.type
    reasons = (*refused, *(score.reason for score in scores if not values[score.name] < score.refused))
    if reasons:
        return Assessment("no", reasons, type_assessed=False, gate=values)
    doubts = tuple(score.reason for score in scores if values[score.name] >= score.doubtful)
    type_assessed = kind is None or values["type"] < kind.not_assessed
    untyped = () if kind is None or type_assessed else (f"type not assessed: {kind.reason}",)
    return Assessment("doubtful" if doubts else "yes", (*doubts, *untyped), type_assessed, values)


def _gate_values(gate: Float | None, manifest: Manifest) -> dict[str, float] | None:
    names = manifest.gate_columns
    given = 0 if gate is None else len(gate)
    if given != len(names):
        raise ValueError(f"the gate has {len(names)} columns by the manifest, and {given} were given")
    return None if gate is None else dict(zip(names, gate.tolist(), strict=True))


def said(assessable: Assessable, reasons: Sequence[str]) -> list[str]:
    """Word the reasons of an assessment for a report."""
    return [f"{_WORDS[assessable]}: {reason}" for reason in reasons]


def decide(finding: Finding, probability: float, assessable: Assessable, limits: Mapping[str, Bounds]) -> Decision:
    """Decide whether a finding is present: by its conformal limits, or by its operating point where there are none.

    Args:
        finding: of the manifest.
        probability: calibrated, 0..1.
        assessable: whether anything can be said.
        limits: by finding; empty where there are none.
    """
    if assessable == "no":
        return "not assessed"
    if not limits:
        return "present" if probability >= finding.operating_point.threshold else "absent"
    bounds = limits[finding.name]
    present, absent = probability >= bounds.present_from, probability <= bounds.absent_to
    if present == absent:
        return "not decided"
    return "present" if present else "absent"


def prediction_set(
    probabilities: Mapping[str, float], assessable: Assessable, conformal: Conformal | None
) -> tuple[str, ...] | None:
    """List the labels that the image may have at the stated error rate, in the model's order.

    The most probable label is always among them.

    Returns:
        None where the manifest states no rate, or the image is not assessable: then nothing is claimed.
    """
    if conformal is None or assessable == "no":
        return None
    likeliest = max(probabilities, key=probabilities.__getitem__)
    return tuple(name for name, share in probabilities.items() if share >= conformal.labels[name] or name == likeliest)
