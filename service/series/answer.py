"""What is answered for a whole series."""

from __future__ import annotations

from dataclasses import dataclass

from service.assessment import Assessment
from service.manifest import Manifest
from service.prediction import Prediction
from service.series.reading import Series
from service.types import Attribution, Decision, Float, Region


@dataclass(frozen=True, slots=True)
class SlicePrediction:
    """The answer for one slice.

    Attributes:
        prediction: of this slice alone.
        region: what of the frame the model saw.
        saliency: of the target that the series' answer is about.
        assessment: of this slice alone; one that is not assessable does not count in what is pooled.
        unseen: share of the frame's pixels that the model did not see, 0..1.
    """

    prediction: Prediction
    region: Region
    saliency: Attribution
    assessment: Assessment
    unseen: float = 0.0


@dataclass(frozen=True, slots=True)
class SeriesFinding:
    """A finding of the whole series.

    Attributes:
        name: of the finding in the manifest.
        probability: calibrated and pooled, 0..1.
        decision: of the series.
        carriers: indices into the series' slices of those that carry it, strongest first; none where it is absent or
            not assessed.
    """

    name: str
    probability: float
    decision: Decision
    carriers: tuple[int, ...]

    @property
    def present(self) -> bool:
        """Whether it is decided that the finding is present."""
        return self.decision == "present"


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """The answer for a series.

    Attributes:
        series: what was answered.
        manifest: of the model that answered.
        method: of the explanation.
        slices: one for each of the series' slices, in their order.
        findings: of the series.
        label: most probable class of the series.
        probabilities: pooled, by class, summing to 1.
        saliency: float32 `[S, H, W]` on the pixels of the slices, in logits, signed.
        assessment: of the series: that of the slices which the answer rests on; it has no gate of its own.
        prediction_set: classes that the series may have; None where nothing is claimed.
        notes: what a reader must know of the pooling.
    """

    series: Series
    manifest: Manifest
    method: str
    slices: tuple[SlicePrediction, ...]
    findings: tuple[SeriesFinding, ...]
    label: str
    probabilities: dict[str, float]
    saliency: Float
    assessment: Assessment
    prediction_set: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
