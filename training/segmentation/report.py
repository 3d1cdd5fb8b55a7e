"""What a measurement of outlines leaves behind: `report.json`, which `export` reads, `report.md` and `scores.csv`."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Literal

from pydantic import Field

from service.validation import Strict
from training.bootstrap import Estimate
from training.files import write_atomically
from training.markdown import table
from training.report import Machine

JSON, MARKDOWN, SCORES = "report.json", "report.md", "scores.csv"


class Score(Strict):
    """One image, measured on its own pixels. `dice` and `iou` are None where nothing is outlined by the reader."""

    id: str
    group: int
    label: str
    dice: float | None
    iou: float | None
    pixels: int
    pixels_called: int


class SegmentationReport(Strict):
    """One evaluation of one checkpoint on the test part.

    `metrics` maps stable names to estimates: `dice` and `iou` are means over the outlined images, `dice/LABEL` over
    those of a label; `found` is the share of outlined images whose outline is touched, `dice_overall` counts all
    pixels of all outlined images together; `empty_called` is the share of images without a finding in which any pixel
    is called. They and the numbers of images count the study's sources; where there are others, `dice/KIND` and
    `empty_called/KIND` are by source and weighting. `threshold` was chosen on the validation part. Digests are SHA-256,
    hexadecimal; `date` is UTC, ISO 8601.
    """

    schema_version: Literal[1] = 1
    task: Literal["segmentation"] = "segmentation"
    network: str
    part: Literal["test"] = "test"
    size: int
    outlined_images: int
    empty_images: int
    groups: int
    groups_by_class: dict[str, int]
    threshold: float = Field(ge=0, le=1)
    threshold_chosen_by: str
    metrics: dict[str, Estimate]
    resamples: int
    seed: int
    checkpoint_digest: str
    split_digest: str
    data_digest: str
    command: str
    date: str
    machine: Machine


def load_report(path: Path) -> SegmentationReport:
    """Read a report, `report.json` or the folder that holds it.

    Raises:
        FileNotFoundError: there is none.
        ValidationError: it is not a segmentation report (pydantic's).
    """
    return SegmentationReport.model_validate_json((path / JSON if path.is_dir() else path).read_bytes())


def load_scores(folder: Path) -> list[Score]:
    """The rows of `scores.csv` in a report's folder, in the order of the split.

    Raises:
        FileNotFoundError: there is none.
        ValidationError: it is not such a file (pydantic's).
    """
    with (folder / SCORES).open(newline="") as file:
        return [Score.model_validate({k: v or None for k, v in row.items()}) for row in csv.DictReader(file)]


def save_report(report: SegmentationReport, scores: list[Score], out: Path) -> None:
    """Write `report.json`, `report.md` and `scores.csv`, atomically."""
    write_atomically(out / JSON, (report.model_dump_json(indent=1) + "\n").encode())
    write_atomically(out / MARKDOWN, markdown(report).encode())
    buffer = StringIO(newline="")
    writer = csv.DictWriter(buffer, list(Score.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(score.model_dump() for score in scores)
    write_atomically(out / SCORES, buffer.getvalue().encode())


def markdown(report: SegmentationReport) -> str:
    """The report as Markdown."""
    groups = ", ".join(f"{name} {count}" for name, count in report.groups_by_class.items())
    provenance = {
        "command": f"`{report.command}`",
        "date": report.date,
        "checkpoint (SHA-256)": f"`{report.checkpoint_digest}`",
        "split (SHA-256)": f"`{report.split_digest}`",
        "data (SHA-256)": f"`{report.data_digest}`",
        "processor": report.machine.processor,
        "device": report.machine.device,
        "versions": ", ".join(f"{name} {version}" for name, version in report.machine.versions.items()),
    }
    blocks = [
        f"# {report.network}: outlines on the {report.part} part",
        f"{report.outlined_images} outlined images and {report.empty_images} without a finding, in {report.groups} "
        "groups (patients or blocks of neighbouring slices, near copies of one another together), input "
        f"{report.size} x {report.size}. Masks are compared on the pixels of the source image. Values come with 95 % "
        f"intervals from {report.resamples} resamples of whole groups, drawn within the groups' label. "
        f"Threshold {report.threshold:.2f}: {report.threshold_chosen_by}.",
        f"Groups by class: {groups}. With so few, the intervals are too narrow rather than too wide.",
        "`dice` and `iou` are means over the outlined images; `dice_overall` counts all their pixels together; `found` "
        "is the share of outlined images whose outline is touched at all; `empty_called` that of images without a "
        "finding in which any pixel is called. Those images come from another source than the outlined ones, so that "
        "the last figure says little of healthy slices from the scanners of the others.",
        table(
            ["measure", "value", "95 % interval"],
            [[f"`{n}`", f"{v.value:.4f}", f"{v.low:.4f} to {v.high:.4f}"] for n, v in report.metrics.items()],
        ),
        "## Provenance",
        table(["", ""], [[name, value] for name, value in provenance.items()]),
    ]
    return "\n\n".join(blocks) + "\n"
