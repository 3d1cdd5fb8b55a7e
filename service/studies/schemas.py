"""What travels over HTTP about whole series, and about studies in the queue."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.dicom_results.options import Kind
from service.dicomweb.client import UID_LENGTH, UID_PATTERN
from service.schemas import RESEARCH_NOTICE, Assessed, ExplanationAnswer, FindingAnswer, ModelName, Problem
from service.types import Decision, Plane
from service.validation import Strict


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class LeftOutAnswer(_Answer):
    """An instance or frame that is not part of the answer, and why."""

    sop_instance: str
    frame: int | None
    reason: str


class SliceAnswer(Assessed):
    """One slice, as POST /v1/predict answers it.

    `region` is x, y, width, height in its pixels: what the model saw, and the cells of the map cover. What is not
    assessable does not count in what is said of the series.
    """

    sop_instance: str
    frame: int = Field(ge=1)
    label: str
    probabilities: dict[str, float]
    findings: dict[str, FindingAnswer]
    region: tuple[float, float, float, float]
    unseen: float | None = Field(default=None, ge=0, le=1, description="share of its pixels that the model did not see")
    explanation: ExplanationAnswer


class SeriesFindingAnswer(_Answer):
    """A finding of the series: pooled and calibrated, and the slices that carry it."""

    probability: float
    present: bool = Field(description="whether the decision is `present`; false does not say that it is absent")
    decision: Decision = Field(
        default_factory=lambda stored: "present" if stored["present"] else "absent",
        description="`not decided`: neither, or both, hold, or the most probable class says otherwise; `not assessed`: "
        "no slice is assessable",
    )
    carriers: list[int] = Field(description="places in `slices`, from 0, strongest first")


class ObjectAnswer(_Answer):
    """A DICOM object that was made."""

    kind: str = Field(description="keyword of its SOP class, such as ParametricMapStorage")
    sop_class: str
    sop_instance: str
    series: str


class ModelAnswer(Assessed):
    """What one model says of a series. `explanation` of every slice is about the series' own target.

    The series is assessed by the slices that the answer rests on, and not assessable where none of them is.
    """

    model: ModelName
    method: str
    label: str
    probabilities: dict[str, float]
    findings: dict[str, SeriesFindingAnswer]
    slices: list[SliceAnswer]
    objects: list[ObjectAnswer]
    notes: list[str]


class MismatchAnswer(_Answer):
    """A rule that did not choose its model for this series, and why."""

    rule: str
    model: str
    reasons: list[str]


class SeriesResultAnswer(_Answer):
    """One series. No answer where no rule chose a model: then `mismatches` says why."""

    study: str
    series: str
    modality: str
    plane: Plane | None = Field(default=None, description="of its slices; null where the header does not say")
    slices: int
    answers: list[ModelAnswer]
    mismatches: list[MismatchAnswer]
    left_out: list[LeftOutAnswer]
    notes: list[str]


class StudyResult(_Answer):
    """The answer of POST /v1/studies."""

    request_id: str
    series: list[SeriesResultAnswer]
    notice: str = RESEARCH_NOTICE


class SeriesRequest(Strict):
    """The body of POST /v1/series: a series of a configured archive that is to be fetched and answered."""

    source: str = Field(default="", description="name of a configured archive")
    wado_url: str = Field(default="", description="its address instead")
    study_uid: str = Field(pattern=UID_PATTERN, max_length=UID_LENGTH)
    series_uid: str = Field(pattern=UID_PATTERN, max_length=UID_LENGTH)
    store: str | None = Field(default=None, description="archive to store the results to; the source where left out")
    model: str = ""
    method: str = ""
    target: str = "predicted"
    results: tuple[Kind, ...] | None = Field(default=None, description="the configured ones where left out")


class StudyJobAnswer(_Answer):
    """A study in the queue. `problem` is why the last attempt failed, or why it is dead."""

    id: str
    status: Literal["receiving", "queued", "running", "done", "dead"]
    stage: Literal["waiting", "fetched", "answered"]
    attempts: int
    progress: float = Field(ge=0, le=1)
    created: AwareDatetime
    changed: AwareDatetime
    due: AwareDatetime = Field(description="not run before")
    url: str
    result: StudyResult | None = Field(default=None, description="once it is done")
    problem: Problem | None = None
    notice: str = RESEARCH_NOTICE


class StudyJobs(_Answer):
    """The answer of GET /v1/jobs: how many there are by status, and the latest."""

    counts: dict[str, int]
    jobs: list[StudyJobAnswer]
