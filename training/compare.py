"""`python -m training compare`: our models in the form of the study's two tables, beside the study's own figures.

Table 1 sets classifier, segmentation network and generator side by side, each by what it is for; Table 2 lists the
classifiers by the usual metrics. The study's figures come from a file in which each names its source; what that file
does not give is shown as not available, never guessed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from service.validation import Strict
from training.bootstrap import Estimate
from training.datasets.record import DatasetError
from training.files import write_atomically
from training.generation.report import Experiment, load_experiment, verdict
from training.markdown import table
from training.report import Report, load_report
from training.segmentation.report import SegmentationReport
from training.segmentation.report import load_report as load_segmentation

FIGURES = Path(__file__).parent / "configs" / "study-figures.toml"
BRAIN, RETINA = "brain-mri-resnet50", "retinal-oct-oculusnet"
UNET, AUGMENTATION = "brain-mri-unet", "brain-mri-augmentation"
MISSING = "not available here"
METRICS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "f2": "F2",
    "kappa": "Cohen's kappa",
    "auroc": "AUROC",
}


class Figure(Strict):
    """A figure of the study: `value` in the unit of ours (a share, not per cent), and where it is written.

    `note` says in what it is not the same as ours.
    """

    model: str
    metric: str
    value: float
    source: str
    note: str = ""


class Figures(Strict):
    """The file with the study's figures."""

    figure: tuple[Figure, ...] = ()

    def cell(self, model: str, metric: str) -> str:
        """What a table shows of one figure."""
        for found in self.figure:
            if (found.model, found.metric) == (model, metric):
                return f"{found.value:.4f}{f' ({found.note})' if found.note else ''}"
        return MISSING


def compare(reports: Path, figures: Figures) -> str:
    """Both tables as Markdown.

    Args:
        reports: folder that holds the reports of the shipped models and of the experiment, by name.
        figures: the study's.

    Raises:
        FileNotFoundError: a report is missing.
        ValidationError: a report is not one (pydantic's).
    """
    brain, retina = load_report(reports / BRAIN), load_report(reports / RETINA)
    blocks = [
        "**Table 1.** Models by task, on our untouched test parts (95 % intervals over patients or blocks).",
        table_1(brain, retina, load_segmentation(reports / UNET), load_experiment(reports / AUGMENTATION), figures),
        "**Table 2.** The classifiers, likewise.",
        table_2(brain, retina, figures),
        _sources(figures),
    ]
    return "\n\n".join(blocks)


def put_between_marks(path: Path, text: str) -> None:
    """Replace what stands in a document between `<!-- compare -->` and `<!-- end -->`, atomically.

    Raises:
        DatasetError: the document has no such marks.
    """
    before, mark, rest = path.read_text().partition("<!-- compare -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not mark or not end:
        raise DatasetError(f"{path}: there are no marks <!-- compare --> and <!-- end -->")
    write_atomically(path, f"{before}{mark}{text}\n{end}{after}".encode())


def load_figures(path: Path) -> Figures:
    """Read the study's figures.

    Raises:
        FileNotFoundError: there is no such file.
        ValidationError: a field is wrong (pydantic's).
    """
    with path.open("rb") as file:
        return Figures.model_validate(tomllib.load(file))


def table_1(
    brain: Report, retina: Report, outlines: SegmentationReport, augmentation: Experiment, figures: Figures
) -> str:
    """Models by task: what each is measured by, the study's figure, ours."""
    gains = [(arm, arm.difference) for arm in augmentation.arms if arm.difference is not None and arm.classical]
    best, gain = max(gains, key=lambda pair: pair[1].value)
    base = next(arm for arm in augmentation.arms if arm.classical and not arm.share)
    slices = f"segmentation, brain MRI, {outlines.outlined_images} outlined slices"
    classifier = f"augmentation, brain MRI at {augmentation.size} x {augmentation.size}, small ResNet"
    rows = [
        ("ResNet-50", "classification, brain MRI", "accuracy", ("resnet50", "accuracy"), _of(brain, "accuracy")),
        ("", "tumour or none", "accuracy", ("resnet50", "finding_accuracy"), _of(brain, "finding_accuracy")),
        ("OculusNet", "classification, retinal OCT", "accuracy", ("oculusnet", "accuracy"), _of(retina, "accuracy")),
        ("U-Net", slices, "Dice", ("unet", "dice"), _cell(outlines.metrics["dice"])),
        ("", "", "IoU", ("unet", "iou"), _cell(outlines.metrics["iou"])),
        ("conditional GAN", classifier, "accuracy without its images", ("gan", "accuracy"), _cell(base.accuracy)),
        ("", "", f"gain by {best.share:.0%} more images, the best share", ("gan", "gain"), _cell(gain)),
    ]
    cells = [[model, task, measure, figures.cell(*key), ours] for model, task, measure, key, ours in rows]
    return table(["model", "task", "measure", "the study", "ours"], cells) + f"\n\n{verdict(augmentation)}"


def table_2(brain: Report, retina: Report, figures: Figures) -> str:
    """The classifiers' metrics, the study's and ours."""
    head = ["measure", "ResNet-50, the study", "ResNet-50, ours", "OculusNet, the study", "OculusNet, ours"]
    rows = [
        [
            title,
            figures.cell("resnet50", name),
            _of(brain, name),
            figures.cell("oculusnet", name),
            _of(retina, name),
        ]
        for name, title in METRICS.items()
    ]
    rows.append(
        [
            "accuracy, any finding against none",
            figures.cell("resnet50", "finding_accuracy"),
            _of(brain, "finding_accuracy"),
            figures.cell("oculusnet", "finding_accuracy"),
            _of(retina, "finding_accuracy"),
        ]
    )
    rows.append(["images (groups)", "", f"{brain.images} ({brain.groups})", "", f"{retina.images} ({retina.groups})"])
    return table(head, rows)


def _sources(figures: Figures) -> str:
    if not figures.figure:
        return f"No figure of the study is entered; see `{FIGURES.name}`."
    lines = [f"- {found.model}, {found.metric}: {found.source}" for found in figures.figure]
    return "Sources of the study's figures:\n\n" + "\n".join(lines)


def _of(report: Report, name: str) -> str:
    return _cell(report.metrics.get(name))


def _cell(value: Estimate | None) -> str:
    return "not measured" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
