"""Model bundles: the only contract between those who make models and the service that runs them.

A bundle is one folder. The reader owns the schema; `export` writes through it.

    manifest.json   everything below, in words and digests
    weights.bin     the weights, half precision, once: the graphs name their places in it
    model.onnx      input   images   uint8   [N, H, W, 1]         prepared pixels (see PreprocessingSpec)
                    output  logits   float32 [N, K]               before the temperature
                    output  cam      float32 [N, K, h, w]         signed; what it equals is written in the manifest
                    and, as the manifest lists them (computed only where they are asked for):
                    output  layercam, gradcam_plusplus float32 [N, K, K, h, w]  classes on the diagonal, contrasts
                                                                  [a, b] (why a and not b) beside it
                    output  gram     float32 [N, h w, h w]        of the centred feature maps; strength [N, h w]: norms
                    output  shapley  float32 [N, K, g, g]         Shapley values as FastSHAP's explainer guesses them
    gradients.onnx  input   pixels   float32 [N, H, W, 1], weights float32 [N, K]
                    output  gradient float32 [N, H, W, 1]         of sum_k weights[k] logits[k] by the pixels
    int8.onnx       as model.onnx, quantised, with its own weights; for CPUs
    fp16.onnx       as model.onnx, computed in float16 up to the last feature maps; for GPUs
    golden.npz      images uint8 [M, H, W, 1]; every output of model.onnx by name, and of int8.onnx by int8.name;
                    gradient float32 [M, H, W] of the logit of class 0
    MODEL_CARD.md   for people

The optional files are there where the manifest lists them. Bundles of task `segmentation`: see `service.segmenter`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from service.errors import BundleDigestMismatch, BundleSchemaMismatch
from service.types import PreprocessingSpec
from service.validation import Strict, faults_of

SCHEMA_VERSION = 2
MANIFEST, GRAPH, GOLDEN, CARD = "manifest.json", "model.onnx", "golden.npz", "MODEL_CARD.md"
WEIGHTS, GRADIENTS, INT8, FP16 = "weights.bin", "gradients.onnx", "int8.onnx", "fp16.onnx"
Reduced = Literal["int8", "fp16"]  # precisions that a bundle may have besides float32
_PIECE = 2**24  # bytes read at once: after each a thread waits for Python's lock, 5 ms where others hold it


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


class SeriesPooling(Strict):
    """How slices become the answer for their series (the formula is in `service.series.pooling`), and how good it was.

    `strongest` slices are averaged; `scale` and `offset` (logits) calibrate the mean. `fitted_on` says what a series
    was; `groups` counts the patients or blocks that scale and offset were fitted on. `metrics` were measured on
    `test_groups` others of the test part by `command`.
    """

    strongest: int = Field(ge=1)
    scale: float = Field(gt=0)
    offset: float
    fitted_on: str
    groups: int = Field(ge=0)
    test_groups: int = Field(default=0, ge=0)
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    command: str = ""
    date: str = ""


class Described(Strict):
    """What the manifests of all tasks say."""

    schema_version: Literal[2] = SCHEMA_VERSION
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str
    title: str
    kind: Kind
    preprocessing: PreprocessingSpec
    provenance: Provenance
    evaluation: Evaluation
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

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [label.name for label in self.labels]
        if len(set(names)) != len(names):
            raise ValueError("labels: names repeat")
        for finding in self.findings:
            strangers = set(finding.labels) - set(names)
            if strangers:
                raise ValueError(f"findings: {finding.name} names labels that do not exist: {sorted(strangers)}")
        if self.default_explanation not in {explanation.method for explanation in self.explanations}:
            raise ValueError("default_explanation: not among the explanations")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the graph's outputs."""
        return tuple(label.name for label in self.labels)


M = TypeVar("M", bound=Described)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its manifest says they are."""

    path: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """Path of the ONNX graph."""
        return self.path / GRAPH

    @property
    def gradients(self) -> Path | None:
        """Path of the gradient graph, where there is one."""
        return self.path / GRADIENTS if GRADIENTS in self.manifest.files else None

    @property
    def int8(self) -> Path | None:
        """Path of the quantised graph, where there is one."""
        return self.path / INT8 if INT8 in self.manifest.files else None

    @property
    def fp16(self) -> Path | None:
        """Path of the graph that computes in float16, where there is one."""
        return self.path / FP16 if FP16 in self.manifest.files else None

    @property
    def golden(self) -> Path:
        """Path of the golden sample."""
        return self.path / GOLDEN


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_bundle(path: Path) -> Bundle:
    """Read a classifier's bundle and verify every file that its manifest lists; raises as `read_manifest`."""
    return Bundle(path, read_manifest(path, Manifest))


def read_manifest(path: Path, schema: type[M]) -> M:
    """Read the manifest of a bundle of one task, and verify every file that it lists.

    Raises:
        BundleSchemaMismatch: the manifest is missing, not JSON, of another schema version or task, or does not list the
            graph and the golden sample.
        BundleDigestMismatch: a file is missing or is not the one that was exported.
    """
    name = path.name
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        manifest = schema.model_validate(content)
    except FileNotFoundError as error:
        raise BundleSchemaMismatch(f"bundle {name}: no {MANIFEST}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleSchemaMismatch(f"bundle {name}: {MANIFEST} is not JSON") from error
    except ValidationError as error:
        raise BundleSchemaMismatch(f"bundle {name}: {faults_of(error, MANIFEST)}") from error
    missing = {GRAPH, GOLDEN} - set(manifest.files)
    if missing:
        raise BundleSchemaMismatch(f"bundle {name}: the manifest lists no {', '.join(sorted(missing))}")
    for file, digest in manifest.files.items():
        _verify(path, name, file, digest)
    return manifest


def _verify(path: Path, name: str, file: str, digest: str) -> None:
    target = path / file
    if target.parent != path:
        raise BundleSchemaMismatch(f"bundle {name}: {file} lies outside the bundle")
    if not target.is_file():
        raise BundleDigestMismatch(f"bundle {name}: {file} is missing")
    if sha256(target) != digest:
        raise BundleDigestMismatch(f"bundle {name}: {file} is not the file that was exported (SHA-256 differs)")
