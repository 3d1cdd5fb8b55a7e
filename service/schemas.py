"""What travels over HTTP: answers, and problems (RFC 9457)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.bundle import Evaluation, Explanation, Finding, Kind, Label
from service.errors import RadiolucentError

RESEARCH_NOTICE = (
    "Research use only: not a medical device. A saliency map is evidence for a prediction, not a lesion outline."
)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelName(_Answer):
    """Which model answered."""

    id: str
    version: str


class ModelDescription(ModelName):
    """What a client may ask of a model, and how good it is."""

    title: str
    provider: str = Field(description="cpu or cuda")
    kind: Kind
    labels: tuple[Label, ...]
    findings: tuple[Finding, ...]
    explanations: tuple[Explanation, ...]
    grid: tuple[int, int] = Field(description="rows and columns of a saliency map")
    evaluation: Evaluation
    intended_use: str
    limits: tuple[str, ...]
    licence: str


class Models(_Answer):
    """The answer of GET /v1/models. `refused` gives the reason by bundle."""

    models: tuple[ModelDescription, ...]
    refused: dict[str, str]
    notice: str = RESEARCH_NOTICE


class Readiness(_Answer):
    """The answer of GET /readyz; the status is 503 where no model is served."""

    ready: bool
    models: tuple[str, ...]
    refused: dict[str, str]


class ExplanationAnswer(_Answer):
    """One saliency map: rows of cells, top first, in logit units; positive speaks for the target, negative against."""

    method: str
    target: str
    shape: tuple[int, int]
    saliency: list[list[float]]
    exact: bool
    overlay: str | None = Field(default=None, description="base64 PNG")


class FindingAnswer(_Answer):
    """A finding's calibrated probability, and whether it reaches the model's operating point."""

    probability: float
    present: bool


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


class ImageAnswer(_Answer):
    """What was found in one image or frame. `region` is x, y, width, height in pixels of the source image."""

    name: str
    status: Literal["ok"] = "ok"
    label: str
    probabilities: dict[str, float]
    findings: dict[str, FindingAnswer]
    region: tuple[float, float, float, float]
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
