"""The manifest of a model bundle: its schema, and what every field means. `service.bundle` reads it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from service.types import PreprocessingSpec
from service.validation import Strict

SCHEMA_VERSION = 3
Reduced = Literal["int8", "fp16"]  # precisions that a bundle may have besides float32


class CodedConcept(Strict):
    """A concept of a terminology, as DICOM codes it (PS3.3 8.8): SCT is SNOMED CT, RADLEX is RadLex, DCM is DICOM."""

    scheme: Literal["SCT", "RADLEX", "DCM"]
    value: str
    meaning: str


class OperatingPoint(Strict):
    """A finding is called present when its calibrated probability reaches `threshold`; `chosen_by` says why there."""

    threshold: float = Field(ge=0, le=1)
    chosen_by: str


class Label(Strict):
    """One output class. `healthy` marks the class of images that show none of the findings."""

    name: str
    display: str
    code: CodedConcept | None = None
    healthy: bool = False


class Finding(Strict):
    """Something reported besides the label: present with the summed probability of some labels."""

    name: str
    display: str
    labels: tuple[str, ...]
    code: CodedConcept | None = None
    operating_point: OperatingPoint


class Kind(Strict):
    """What images the model is for. An image of another kind is answered with a warning.

    `modalities` are values of DICOM Modality (0008,0060); `largest_colour` is the highest mean spread between
    colour channels (0..1) of a grey image that went through colour compression.
    """

    modalities: tuple[str, ...]
    body_part: CodedConcept | None
    description: str
    largest_colour: float = 0.04


class Graph(Strict):
    """The ONNX graph. `cam` says what the output equals: with `class_activation`, mean(cam) + bias = logit, exactly.

    `outputs` are the others that it has.
    """

    opset: int
    grid: tuple[int, int]
    outputs: tuple[str, ...]
    cam: Literal["class_activation", "gradient"]
    target_layer: str
    weights: Literal["float16", "float32"]
    bias: tuple[float, ...] | None


class Estimate(Strict):
    """A measured value with its 95 % confidence interval (None where none was computed)."""

    value: float
    low: float | None = None
    high: float | None = None


class Explanation(Strict):
    """A method that the bundle can explain with.

    `exact` methods compute their definition to rounding error. `quality` is how good the maps were found to be
    (`docs/explanation-quality.md` says what each measure is); empty where that was not measured.
    """

    method: str
    exact: bool
    meaning: str
    source: str
    quality: dict[str, Estimate] = Field(default_factory=dict)


class Profile(Strict):
    """A cheaper graph, and what it was measured to change on the test part, against the full one.

    `measured_on` is the provider that it ran on there: a CPU computes float16 in float32 and only rounds between.
    """

    images: int
    accuracy_full: float
    accuracy: float
    labels_agree: float
    map_correlation: float
    measured_on: Literal["cpu", "cuda"] = "cpu"


class Evaluation(Strict):
    """Measured on a part that no choice looked at. `half_precision` is what storing half-precision weights changed."""

    part: str
    images: int
    groups: int
    command: str
    date: str
    metrics: dict[str, Estimate]
    half_precision: dict[str, float]
    localisation: dict[str, Estimate]
    shortcut: dict[str, Estimate]


class ParityCheck(Strict):
    """The largest deviation found by one of the exporter's checks, and the largest that it allows."""

    check: str
    deviation: float
    tolerance: float
    images: int


class Provenance(Strict):
    """Where the weights come from."""

    network: str
    parameters: int
    training_data: str
    data_sha256: str
    split_sha256: str
    checkpoint_sha256: str
    initial_weights: str | None
    epochs: int


class Bounds(Strict):
    """A finding may be absent up to the probability `absent_to`, and present from the probability `present_from` on.

    Where exactly one of the two holds, that is the decision; otherwise it is not decided.
    """

    absent_to: float = Field(ge=0, le=1)
    present_from: float = Field(ge=0, le=1)


class SeriesPooling(Strict):
    """How slices become the answer for their series (the formula is in `service.series.pooling`), and how good it was.

    `strongest` slices are averaged; `scale` and `offset` (logits) calibrate the mean. `findings` are limits of the
    calibrated probabilities, as those of `Conformal` are for images, at `error_rate`. `fitted_on` says what a series
    was; `groups` counts the patients or blocks that all of these were fitted on. `metrics` were measured on
    `test_groups` others of the test part by `command`.
    """

    strongest: int = Field(ge=1)
    scale: float = Field(gt=0)
    offset: float
    error_rate: float | None = Field(default=None, gt=0, lt=1)
    findings: dict[str, Bounds] = Field(default_factory=dict[str, Bounds])
    fitted_on: str
    groups: int = Field(ge=0)
    test_groups: int = Field(default=0, ge=0)
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    command: str = ""
    date: str = ""


class GateScore(Strict):
    """One column of the graph's output `gate`: how far an image is from those that the model knows; larger is farther.

    Attributes:
        name: of the score.
        doubtful: from this value on an image is doubtful.
        refused: from this value on it is not assessable.
        reason: what such a value says, for people.
    """

    name: str
    doubtful: float
    refused: float
    reason: str


class TypeScore(Strict):
    """One more column of `gate`: whether the finding's label can be judged on such an image; larger: it cannot.

    Attributes:
        not_assessed: from this value on only the finding is answered, not which of its labels it is.
        reason: why, for people.
    """

    not_assessed: float
    reason: str


class Gate(Strict):
    """Whether an image is of the kind that the model is for.

    The graph's output `gate` is float32 `[N, G]`: a column for each of `scores`, in order, then one for `type` where
    there is one.

    Attributes:
        scores: the worst of them decides.
        type: see `TypeScore`; None: the label can be judged on every image.
        fitted_on: the images that the scores and their limits were fitted on, in words.
        metrics: shares of images found doubtful or refused, by kind of image, on images that no choice looked at.
        command: that fitted and measured it.
        date: of that, ISO 8601.
    """

    scores: tuple[GateScore, ...] = Field(min_length=1)
    type: TypeScore | None = None
    fitted_on: str
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    command: str = ""
    date: str = ""


class Conformal(Strict):
    """Limits of probabilities at which answers are wrong at a stated rate at most (split conformal, by class).

    Vovk et al., "Algorithmic Learning in a Random World", 2005, chapter 4.5 (Mondrian predictors).

    Attributes:
        error_rate: share of the images of each class whose prediction set lacks their class, at most.
        labels: lowest calibrated probability at which a label belongs to the prediction set.
        findings: by name.
        fitted_on: in words.
        images: that they were fitted on.
        groups: patients or blocks of these.
        metrics: error rates and shares not decided, by class and source, on images that no choice looked at.
        command: that fitted and measured them.
        date: of that, ISO 8601.
    """

    error_rate: float = Field(gt=0, lt=1)
    labels: dict[str, float]
    findings: dict[str, Bounds]
    fitted_on: str
    images: int = Field(ge=0)
    groups: int = Field(ge=0)
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    command: str = ""
    date: str = ""


class Change(Strict):
    """What one other way to store the test images changed in the answers.

    Attributes:
        resampled: the pixels were interpolated to another grid, whose spacing the header says.
        labels_changed: share of the labels, 0..1.
        largest_probability_change: of any class of any image, 0..1.
        map_correlation: median rank correlation of the maps, brought back to the picture.
        lowest_map_correlation: the lowest of any image.
    """

    resampled: bool
    labels_changed: float
    largest_probability_change: float
    map_correlation: float
    lowest_map_correlation: float


class Invariance(Strict):
    """How far answers depend on how an image is stored, by way to store it (`export.storing`)."""

    images: int
    command: str
    date: str
    changes: dict[str, Change]


class Described(Strict):
    """What the manifests of all tasks say."""

    schema_version: Literal[3] = SCHEMA_VERSION
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str
    title: str
    kind: Kind
    preprocessing: PreprocessingSpec
    provenance: Provenance
    evaluation: Evaluation
    invariance: Invariance | None = None
    parity: tuple[ParityCheck, ...]
    intended_use: str
    limits: tuple[str, ...]
    licence: str
    references: tuple[str, ...] = ()
    files: dict[str, str]


class Manifest(Described):
    """Everything that the service and its users know of a classifier. Written by `export`, read here."""

    task: Literal["classification"] = "classification"
    labels: tuple[Label, ...] = Field(min_length=2)
    findings: tuple[Finding, ...] = ()
    graph: Graph
    explanations: tuple[Explanation, ...] = Field(min_length=1)
    default_explanation: str
    profiles: dict[Reduced, Profile] = Field(default_factory=dict)
    temperature: float = Field(gt=0)
    series_pooling: SeriesPooling | None = None
    gate: Gate | None = None
    conformal: Conformal | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names):
            raise ValueError("labels: names repeat")
        for finding in self.findings:
            strangers = set(finding.labels) - set(names)
            if strangers:
                raise ValueError(f"findings: {finding.name} names labels that do not exist: {sorted(strangers)}")
        if len(set(self.gate_columns)) != len(self.gate_columns):
            raise ValueError("gate: names of scores repeat")
        if self.default_explanation not in {explanation.method for explanation in self.explanations}:
            raise ValueError("default_explanation: not among the explanations")
        return self

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.conformal is not None and set(self.conformal.labels) != set(self.class_names):
            raise ValueError("conformal: its labels are not those of the model")
        found = {finding.name for finding in self.findings}
        for field, limits in {"conformal": self.image_limits, "series_pooling": self.series_limits}.items():
            if limits and set(limits) != found:
                raise ValueError(f"{field}: its findings are not those of the model")
        return self

    @property
    def image_limits(self) -> dict[str, Bounds]:
        """Give the limits by which findings of an image are decided, by name; empty where operating points decide."""
        return self.conformal.findings if self.conformal else {}

    @property
    def series_limits(self) -> dict[str, Bounds]:
        """Give those of a series: the ones that were fitted on series or, where there are none, those of images."""
        own = self.series_pooling.findings if self.series_pooling else {}
        return own or self.image_limits

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the graph's outputs."""
        return tuple(label.name for label in self.labels)

    @property
    def gate_columns(self) -> tuple[str, ...]:
        """Names of the columns of the graph's output `gate`; none without a gate."""
        if self.gate is None:
            return ()
        return (*(score.name for score in self.gate.scores), *(("type",) if self.gate.type else ()))

    @property
    def always(self) -> frozenset[str]:
        """Outputs of the graph that every prediction needs besides logits and cam."""
        return frozenset({"gate"} if self.gate else ())
