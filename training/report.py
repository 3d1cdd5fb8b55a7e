"""What an evaluation leaves behind: `report.json`, which `export` reads, and `report.md` for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from service.validation import Strict
from training.bootstrap import Estimate
from training.calibration import ReliabilityBin
from training.files import write_atomically
from training.markdown import table

SCHEMA_VERSION = 1
JSON, MARKDOWN = "report.json", "report.md"


class OperatingPoint(Strict):
    """How a finding (any class that is not healthy) is called, and what comes of it on the reported part.

    Called where the calibrated probability of the finding reaches `threshold`; None stands for the most probable class.
    """

    name: str
    threshold: float | None = Field(ge=0, le=1)
    chosen_by: str
    measured: dict[str, Estimate]


class Machine(Strict):
    """Where the numbers were computed, and with what: versions by package."""

    processor: str
    device: str
    versions: dict[str, str]


class Report(Strict):
    """One evaluation of one checkpoint on one part of a dataset.

    `metrics`, `localisation` and `shortcut` map stable names to estimates; `counts` says on how many images those of
    the last two stand. `size` is the input's side in pixels. Digests are SHA-256, hexadecimal; `data_digest` covers
    ids, labels and decoded pixels of the whole dataset. `date` is UTC, ISO 8601.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    network: str
    classes: tuple[str, ...]
    healthy: tuple[str, ...]
    part: str
    size: int
    images: int
    groups: int
    groups_by_class: dict[str, int]
    temperature: float = Field(gt=0)
    metrics: dict[str, Estimate]
    operating_points: tuple[OperatingPoint, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability_before: tuple[ReliabilityBin, ...]
    reliability_after: tuple[ReliabilityBin, ...]
    localisation: dict[str, Estimate]
    shortcut: dict[str, Estimate]
    counts: dict[str, int]
    resamples: int
    seed: int
    checkpoint_digest: str
    split_digest: str
    data_digest: str
    command: str
    date: str
    machine: Machine


def load_report(path: Path) -> Report:
    """Read a report, `report.json` or the folder that holds it.

    Raises:
        FileNotFoundError: there is none.
        ValidationError: it is not a report of this schema version (pydantic's).
    """
    return Report.model_validate_json((path / JSON if path.is_dir() else path).read_bytes())


def save_report(report: Report, out: Path, figures: Sequence[str]) -> None:
    """Write `report.json` and `report.md`, which shows the figures (file names in `out`), atomically."""
    write_atomically(out / JSON, (report.model_dump_json(indent=1) + "\n").encode())
    write_atomically(out / MARKDOWN, markdown(report, figures).encode())


def markdown(report: Report, figures: Sequence[str] = ()) -> str:
    """The report as Markdown."""
    overall = {name: value for name, value in report.metrics.items() if "/" not in name}
    blocks = [
        f"# {report.network} on the {report.part} part",
        _introduction(report),
        "## Metrics",
        "Precision, recall, F1, F2, specificity and AUROC are means over the classes, one against the rest.",
        _estimates(overall, "metric"),
        "## By class",
        _by_class(report),
        "## Confusion matrix",
        "Rows are labels, columns are predictions.",
        table(
            ["", *report.classes], [[n, *map(str, r)] for n, r in zip(report.classes, report.confusion, strict=True)]
        ),
        *_operating_points(report),
        *_section("Localisation", _LOCALISATION, report.localisation, report.counts),
        *_section("Source shortcut", _SHORTCUT, report.shortcut, report.counts),
        *(["## Figures"] if figures else []),
        *(f"![{Path(name).stem.replace('-', ' ')}]({name})" for name in figures),
        "## Provenance",
        _provenance(report),
    ]
    return "\n\n".join(blocks) + "\n"


_LOCALISATION = (
    "On images with an outline. `pointing_game`: the peak of the class activation map lies inside the outline. "
    "`energy_inside`: share of the map's positive values inside. The map is that of the labelled class, with "
    "`predicted` that of the predicted one. `centre` marks the middle of the image, `random` is noise on the same grid."
)
_SHORTCUT = (
    "Do images of healthy subjects differ from the others in more than the lesion? `removed`: share of the lesion "
    "slices, called so before, that are still called so after the lesion was painted over (`inpainted` from its rim, "
    "`mirrored` from the opposite side; low is good). `control`: a patch of the same shape painted over elsewhere in "
    "the head (high is good). `hidden`: the network sees only what lies outside the head, the head's silhouette, or a "
    "thumbnail of 8 x 8 (0.5 is good). `probe`: a logistic regression on such thumbnails, fitted on the validation "
    "part: what the data give away to any network. A painted-over slice is itself unlike any training image."
)


def _introduction(report: Report) -> str:
    smallest = min(report.groups_by_class.items(), key=lambda item: item[1])
    text = (
        f"{report.images} images in {report.groups} groups (patients, blocks of neighbouring slices, near copies), "
        f"input {report.size} x {report.size}. Values come with 95 % intervals from {report.resamples} resamples "
        "of whole groups, drawn within the groups' most frequent label (cluster bootstrap, Field & Welsh 2007; "
        "percentiles). Temperature and thresholds were chosen on the validation part. "
        f"Temperature {report.temperature:.4f}."
    )
    if smallest[1] < 20:
        text += f" {smallest[0]} has {smallest[1]} groups only: with so few, percentile intervals are too narrow."
    return text


def _by_class(report: Report) -> str:
    names = list(dict.fromkeys(name.split("/")[0] for name in report.metrics if "/" in name))
    rows = [[label, *(_cell(report.metrics.get(f"{name}/{label}")) for name in names)] for label in report.classes]
    return table(["class", *names], rows)


def _operating_points(report: Report) -> Iterable[str]:
    if not report.operating_points:
        return []
    names = list(dict.fromkeys(name for point in report.operating_points for name in point.measured))
    rows = [
        [
            point.name,
            "most probable class" if point.threshold is None else f"{point.threshold:.4f}",
            *(_cell(point.measured.get(name)) for name in names),
            point.chosen_by,
        ]
        for point in report.operating_points
    ]
    healthy = ", ".join(report.healthy)
    return [
        "## Any finding against none",
        f"The probability of a finding is one minus that of {healthy}, after the temperature.",
        table(["operating point", "threshold", *names, "chosen by"], rows),
    ]


def _section(title: str, text: str, values: Mapping[str, Estimate], counts: Mapping[str, int]) -> Iterable[str]:
    if not values:
        return []
    shown = {name: count for name, count in counts.items() if any(value.startswith(name) for value in values)}
    stand = "Images: " + ", ".join(f"{name} {count}" for name, count in shown.items()) + "."
    return [f"## {title}", text, _estimates(values, "measure"), stand]


def _provenance(report: Report) -> str:
    lines = {
        "command": f"`{report.command}`",
        "date": report.date,
        "checkpoint (SHA-256)": f"`{report.checkpoint_digest}`",
        "split (SHA-256)": f"`{report.split_digest}`",
        "data (SHA-256)": f"`{report.data_digest}`",
        "seed": str(report.seed),
        "processor": report.machine.processor,
        "device": report.machine.device,
        "versions": ", ".join(f"{name} {version}" for name, version in report.machine.versions.items()),
    }
    return table(["", ""], [[name, value] for name, value in lines.items()])


def _estimates(values: Mapping[str, Estimate], title: str) -> str:
    rows = [[f"`{name}`", f"{v.value:.4f}", f"{v.low:.4f} to {v.high:.4f}"] for name, v in values.items()]
    return table([title, "value", "95 % interval"], rows)


def _cell(value: Estimate | None) -> str:
    return "not defined" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
