"""What travels over HTTP: answers, and problems (RFC 9457)."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.errors import RadiolucentError
from service.manifest import (
    Conformal,
    Estimate,
    Evaluation,
    Finding,
    Gate,
    Invariance,
    Kind,
    Label,
    OperatingPoint,
    Profile,
    Provenance,
    Reduced,
)
from service.types import Assessable, Decision, Encoding, Plane, PreprocessingSpec, Stopped

RESEARCH_NOTICE = (
    "Research use only: not a medical device. A saliency map is evidence for a prediction, not a lesion outline."
)


OUTLINE_NOTICE = (
    "Research use only: not a medical device. An outline is what a model draws, not a measurement to treat by."
)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelName(_Answer):
    """Which model answered."""

    id: str
    version: str


class MethodDescription(_Answer):
    """An explanation method of a model, and what to expect of it here."""

    method: str
    exact: bool = Field(description="computes its definition to rounding error; otherwise it is sampled or learned")
    meaning: str = Field(description="what the values are, and their unit")
    unit: str = Field(description="of the values, in the singular; empty where they have none")
    source: str
    tier: Literal["inline", "budgeted", "job"] = Field(
        description="inline: within a second; budgeted: to be waited for; job: only by POST /v1/explanations, unless "
        "with a smaller budget or a deadline"
    )
    typical_ms: float = Field(description="for one image and one target by default, measured at start on this machine")
    default_budget: int = Field(description="images that go through the model for it; 0: the prediction suffices")
    targeted: bool = Field(
        description="whether the map depends on the target; false: it shows what the network responds to, and is no "
        "evidence for any class"
    )
    same_as: str | None = Field(description="method whose map is the same on this model; null: there is none")
    contrast: bool = Field(description="whether `against` is understood")
    quality: dict[str, Estimate] = Field(description="how good its maps were found to be on the test part")


class ModelDescription(ModelName):
    """What a client may ask of a classifier, and how good it is."""

    task: Literal["classification"] = "classification"
    title: str
    provider: str = Field(description="cpu or cuda")
    precision: str = Field(description="fp32, int8 or fp16, of predictions and of what is computed from them")
    kind: Kind
    labels: tuple[Label, ...]
    findings: tuple[Finding, ...]
    explanations: tuple[MethodDescription, ...]
    default_explanation: str
    grid: tuple[int, int] = Field(description="rows and columns of a class activation map")
    provenance: Provenance
    evaluation: Evaluation
    profiles: dict[Reduced, Profile]
    preprocessing: PreprocessingSpec = Field(description="what of an image reaches the model")
    invariance: Invariance | None = Field(description="how far answers depend on how an image is stored; null: unknown")
    gate: Gate | None = Field(description="when an image is doubtful or not assessable; null: not measured")
    conformal: Conformal | None = Field(
        description="limits of the decisions, and how often they are wrong; null: operating points decide"
    )
    intended_use: str
    limits: tuple[str, ...]
    licence: str


class SegmenterDescription(ModelName):
    """What a segmentation model outlines, and how good its outlines are: for POST /v1/segment."""

    task: Literal["segmentation"] = "segmentation"
    title: str
    provider: str = Field(description="cpu or cuda")
    kind: Kind
    label: Label
    operating_point: OperatingPoint = Field(description="of a pixel's probability")
    grid: tuple[int, int] = Field(description="rows and columns of the mask before it is brought to the image")
    evaluation: Evaluation
    preprocessing: PreprocessingSpec = Field(description="what of an image reaches the model")
    invariance: Invariance | None = Field(description="how far answers depend on how an image is stored; null: unknown")
    intended_use: str
    limits: tuple[str, ...]
    licence: str


class Models(_Answer):
    """The answer of GET /v1/models: classifiers first. `refused` gives the reason by bundle."""

    models: tuple[ModelDescription | SegmenterDescription, ...]
    refused: dict[str, str]
    notice: str = RESEARCH_NOTICE


class Readiness(_Answer):
    """The answer of GET /readyz; the status is 503 where no model is served."""

    ready: bool
    models: tuple[str, ...]
    refused: dict[str, str]


class ExplanationAnswer(_Answer):
    """One saliency map: rows of cells, top first; positive speaks for the target, negative against it.

    The cells cover the image's `region`, in equal parts. GET /v1/models says what the values mean.
    """

    method: str
    target: str
    against: str | None = None
    shape: tuple[int, int]
    saliency: list[list[float]] | str = Field(
        description="rows of numbers; in another `encoding` base64 of the values, row by row, little-endian"
    )
    encoding: Encoding = Field(default="numbers", description="of `saliency` and `interval`")
    exact: bool
    parameters: dict[str, float | int | str] = Field(description="what the method was run with")
    evaluations: int = Field(description="images that went through the model for it, besides the prediction")
    additivity_error: float | None = Field(
        default=None,
        description="how far the values' sum is from what it should be, in logits; null where the method has no sum",
    )
    interval: list[list[float]] | str | None = Field(
        default=None,
        description="half-widths of the 95 % confidence intervals of `saliency`; null where nothing is sampled",
    )
    stopped: Stopped = Field(description="why it ended: complete, converged, budget or deadline")
    quality: dict[str, Estimate] = Field(description="how far such maps can be trusted: measured on the test part")
    overlay: str | None = Field(default=None, description="base64 of a picture: PNG, or what `picture` asked for")


class FindingAnswer(_Answer):
    """A finding's calibrated probability, and what is decided of it.

    It is decided by the conformal limits of GET /v1/models, or by the operating point where there are none.
    """

    probability: float
    present: bool = Field(description="whether the decision is `present`; false does not say that it is absent")
    decision: Decision = Field(
        default_factory=lambda stored: "present" if stored["present"] else "absent",
        description="`not decided`: neither, or both, hold at the stated error rate; `not assessed`: the image is not "
        "assessable",
    )


class Problem(_Answer):
    """RFC 9457. `request_id` is in the log as well where the fault is ours."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None

    @staticmethod
    def of(error: RadiolucentError, request_id: str | None = None) -> Problem:
        """The problem that a client sees of an error."""
        kind = f"urn:radiolucent:problem:{error.kind}"
        return Problem(type=kind, title=error.title, status=error.status, detail=str(error), request_id=request_id)


class Assessed(_Answer):
    """Whether the model can answer for an image or a series, and what it then claims."""

    assessable: Assessable = Field(
        default="yes", description="whether the model can answer for such an image; with `no` nothing is decided"
    )
    reasons: list[str] = Field(
        default_factory=list[str], description="why it is not assessable or doubtful, and why the type is not assessed"
    )
    type_assessed: bool = Field(
        default=True, description="whether `label` says which kind of finding it is; else it is only the most probable"
    )
    prediction_set: list[str] | None = Field(
        default=None,
        description="classes that the image may have at the model's error rate; null where the model states none, or "
        "the image is not assessable",
    )
    gate: dict[str, float] | None = Field(
        default=None, description="what the assessment rests on, by score; limits are in GET /v1/models"
    )


class ImageAnswer(Assessed):
    """What was found in one image or frame.

    `region` is x, y, width, height of what the model saw, in pixels of the source image as it is stored, however it was
    turned for the model. It reaches beyond the image where that was padded.
    """

    name: str
    status: Literal["ok"] = "ok"
    label: str
    probabilities: dict[str, float]
    findings: dict[str, FindingAnswer]
    region: tuple[float, float, float, float]
    unseen: float | None = Field(
        default=None, ge=0, le=1, description="share of the image's pixels that the model did not see"
    )
    plane: Plane | None = Field(
        default=None, description="from Image Orientation (Patient) (0020,0037); null where the file does not say"
    )
    explanations: list[ExplanationAnswer]
    warnings: list[str]


class ImageFailure(_Answer):
    """Why one image could not be answered; the others of the request are."""

    name: str
    status: Literal["failed"] = "failed"
    error: Problem


class Result(_Answer):
    """The answer of predict and explain: one result for each image or frame, in order."""

    request_id: str
    model: ModelName
    results: list[ImageAnswer | ImageFailure]
    timing_ms: dict[str, float]
    notice: str = RESEARCH_NOTICE


class OutlineAnswer(_Answer):
    """What was outlined in one image or frame.

    `contours` are closed lines of [x, y] in pixels of the source image, whose upper left corner is [0, 0] (the centre
    of its first pixel is [0.5, 0.5]), as `region` is; the first point is not repeated, and a line inside another one is
    a hole (SVG: `fill-rule="evenodd"`).
    """

    name: str
    status: Literal["ok"] = "ok"
    label: str = Field(description="what is outlined")
    present: bool = Field(description="whether any pixel is inside")
    peak: float = Field(description="largest probability of a pixel, 0 to 1")
    threshold: float = Field(description="probability from which a pixel is inside")
    size: tuple[int, int] = Field(description="width and height of the source image in pixels")
    region: tuple[float, float, float, float] = Field(
        description="x, y, width, height of what the model saw, in pixels of the source image"
    )
    unseen: float | None = Field(
        default=None, ge=0, le=1, description="share of the image's pixels that the model did not see"
    )
    plane: Plane | None = Field(
        default=None, description="from Image Orientation (Patient) (0020,0037); null where the file does not say"
    )
    contours: list[list[tuple[float, float]]]
    area_pixels: int = Field(description="pixels inside")
    area_mm2: float | None = Field(
        default=None, description="their area, where the file gives its Pixel Spacing (0028,0030)"
    )
    mask: str | None = Field(
        default=None, description="base64 PNG of the source image's size, 255 inside and 0 outside, where asked for"
    )
    warnings: list[str]


class SegmentationResult(_Answer):
    """The answer of segment: one result for each image or frame, in order."""

    request_id: str
    model: ModelName
    results: list[OutlineAnswer | ImageFailure]
    timing_ms: dict[str, float]
    notice: str = OUTLINE_NOTICE


class JobAnswer(_Answer):
    """A job. Whoever knows its URL can read and delete it."""

    id: str
    status: Literal["queued", "running", "done", "failed"]
    progress: float = Field(ge=0, le=1, description="share of the evaluations made")
    created: AwareDatetime
    expires: AwareDatetime = Field(description="when its images and its result are deleted")
    url: str
    result: Result | None = Field(default=None, description="once it is done")
    error: Problem | None = Field(default=None, description="once it has failed")
    notice: str = RESEARCH_NOTICE
