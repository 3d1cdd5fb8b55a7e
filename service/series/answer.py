"""What is answered for a whole series."""

from __future__ import annotations

from dataclasses import dataclass

from service.manifest import Manifest
from service.prediction import Prediction
from service.series.reading import Series
from service.types import Attribution, Float, Region


@dataclass(frozen=True, slots=True)
class SlicePrediction:
    """The answer for one slice.

    Attributes:
        prediction: of this slice alone.
        region: what of the frame the model saw.
        saliency: of the target that the series' answer is about.
        unseen: share of the frame's pixels that the model did not see, 0..1.
    """

    prediction: Prediction
    region: Region
    saliency: Attribution
    unseen: float = 0.0


@dataclass(frozen=True, slots=True)
class SeriesFinding:
    """A finding of the whole series.

    Attributes:
        name: of the finding in the manifest.
        probability: calibrated and pooled, 0..1.
        present: whether it reaches the manifest's threshold.
        carriers: indices into the series' slices of those that carry it, strongest first.
    """

    name: str
    probability: float
    present: bool
    carriers: tuple[int, ...]


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
    notes: tuple[str, ...] = ()
