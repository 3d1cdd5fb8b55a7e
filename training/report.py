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


class CallRule(Strict):
    """How a finding is called: where its calibrated probability reaches `threshold`; None: the most probable class."""

    name: str
    threshold: float | None = Field(ge=0, le=1)
    chosen_by: str


class SourceRow(Strict):
    """Measurements on the images of one source, sequence, plane, level or lesion size.

    `by` says which of these, `name` its name. `images`, those `with_finding` and their `groups` count all of them; a
    value may count some of them only. `paired` counts the patients that `auroc_within_level` is the mean over.
    """

    by: str
    name: str
    images: int
    with_finding: int
    groups: int
    paired: int
    values: dict[str, Estimate]


class SourceReport(Strict):
    """Measurements by where the images come from, on `images` of all sources; see `training.sources`."""

    images: int
    rules: tuple[CallRule, ...]
    findings: tuple[SourceRow, ...]
    maps: tuple[SourceRow, ...]
    painted: tuple[SourceRow, ...]


class Machine(Strict):
    """Where the numbers were computed, and with what: versions by package."""

    processor: str
    device: str
    versions: dict[str, str]


class Report(Strict):
    """One evaluation of one checkpoint on one part of a dataset.

    `metrics`, `localisation` and `shortcut` map stable names to estimates; `counts` says on how many images those of
    the last two stand. Where records know their source, all of these count the images of the study's sources alone,
    and `sources` holds what was measured on all of them. `size` is the input's side in pixels. Digests are SHA-256,
    hexadecimal; `data_digest` covers ids, labels and decoded pixels of the whole dataset. `date` is UTC, ISO 8601.
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
    sources: SourceReport | None = None
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
        *([] if report.sources is None else _sources(report.sources)),
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
    if report.sources is not None:
        text += (
            " All tables but those by source count the images of the study's sources alone, whose class is known; "
            f"those by source count {report.sources.images} images of all sources."
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


_SOURCES = (
    "Images of all sources of the part. Intervals come from resamples of whole patients of a row (of near copies "
    "where patients are unknown); with few groups they are too narrow. `auroc`: any finding against none, among the "
    "images of the row. `auroc_within_patients`: share of the pairs of a slice with a finding and one without, of the "
    "same patient and sequence, that are in the right order, averaged over patients. `auroc_within_level`: the same "
    "for pairs whose heights differ by less than 0.12 of the volume, over the `patients with pairs`."
)
_RULE = (
    "Sensitivity and, on slices without a finding, false calls. `sensitivity_large` counts lesions over 1 % of the "
    "input."
)
_MAPS = (
    "On images with an outline, for the map of the labelled class or, where the type is not known, of the most "
    "probable finding. `pointing_game`: the centre of the strongest cell lies inside. `share_inside`: share of the "
    "positive evidence inside, each cell counting for its area. `cell_precision`: average precision of cells against "
    "the outline on a grid of 28 x 28. `centre` marks the middle of the image, `random` is noise."
)
_PAINTED = (
    "Share of the slices called before that are still called after the lesion was painted over by an inpainter that "
    "training does not use (low is good), and after a patch of the same shape elsewhere was (`control`, high is good)."
)


def _sources(report: SourceReport) -> Iterable[str]:
    areas = ("auroc", "auroc_within_patients", "auroc_within_level")
    blocks = ["## By source", _SOURCES, _rows(report.findings, areas, paired=True)]
    for rule in report.rules:
        names = [f"{name}/{rule.name}" for name in ("sensitivity", "sensitivity_large", "false_calls")]
        line = "the most probable class" if rule.threshold is None else f"probability of at least {rule.threshold:.4f}"
        blocks += [f"### Called: {rule.name}", f"{line} ({rule.chosen_by}). {_RULE}", _rows(report.findings, names)]
    for title, text, rows in (("Maps", _MAPS, report.maps), ("Painted over", _PAINTED, report.painted)):
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row.values))
            blocks += [f"### {title} by source", text, _rows(rows, names)]
    return blocks


def _rows(rows: Sequence[SourceRow], names: Sequence[str], *, paired: bool = False) -> str:
    """The rows that have one of the values, with those values."""
    short = [name.partition("/")[0] for name in names]
    head = ["by", "", "images", "with finding", "groups", *(["patients with pairs"] if paired else [])]
    return table(
        [*head, *(short if len(set(short)) == len(short) else names)],
        [
            [row.by, row.name, str(row.images), str(row.with_finding), str(row.groups)]
            + ([str(row.paired)] if paired else [])
            + [_cell(row.values[name]) if name in row.values else "" for name in names]
            for row in rows
            if any(name in row.values for name in names)
        ],
    )


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
