"""What the experiment leaves behind: `report.json`, and `report.md` for people."""

from __future__ import annotations

from pathlib import Path

from service.validation import Strict
from training.bootstrap import Estimate
from training.files import write_atomically
from training.markdown import table
from training.report import Machine


class Quality(Strict):
    """Of the generated images; `training.generation.quality` says what each measure is.

    `recognised` is the share that a classifier trained on real images gives the class they were made for, by class
    and `all`; `recognised_real` the same of real validation images. Distances and spreads are by `generated` and
    `unseen`, real images of the validation part.
    """

    images: int
    recognised: dict[str, float]
    recognised_real: float
    frechet: dict[str, float]
    nearest_median: dict[str, float]
    memorised_share: float
    spread: dict[str, float]


class Arm(Strict):
    """Trained on all real images and `share` as many generated ones; `classical`: with classical augmentation.

    `accuracies` and `balanced` are by seed on the test part. `difference` is the accuracy less that of the same arm
    without generated images, seeds averaged, with its interval from whole groups; `seeds_p` is the paired t-test's
    over the seeds (None for the arm without generated images, or where all differences are alike).
    """

    name: str
    share: float
    classical: bool
    accuracies: tuple[float, ...]
    balanced: tuple[float, ...]
    accuracy: Estimate
    difference: Estimate | None
    seeds_p: float | None


class Experiment(Strict):
    """One experiment. Digests are SHA-256, hexadecimal; `date` is UTC, ISO 8601."""

    schema_version: int = 1
    classes: tuple[str, ...]
    size: int
    training_images: int
    test_images: int
    groups: int
    groups_by_class: dict[str, int]
    seeds: tuple[int, ...]
    classifier_steps: int
    quality: Quality
    arms: tuple[Arm, ...]
    classical_gain: Estimate
    resamples: int
    generator_epochs: int
    checkpoint_digest: str
    split_digest: str
    command: str
    date: str
    machine: Machine


def load_experiment(path: Path) -> Experiment:
    """Read `report.json`, or the one in the folder.

    Raises:
        FileNotFoundError: there is none.
        ValidationError: it is not an experiment's (pydantic's).
    """
    return Experiment.model_validate_json((path / "report.json" if path.is_dir() else path).read_bytes())


def save_experiment(report: Experiment, out: Path) -> None:
    """Write `report.json` and `report.md`, atomically."""
    write_atomically(out / "report.json", (report.model_dump_json(indent=1) + "\n").encode())
    write_atomically(out / "report.md", markdown(report).encode())


def markdown(report: Experiment) -> str:
    """The report as Markdown."""
    blocks = [
        "# Do generated images make a classifier better?",
        f"A conditional GAN at {report.size} x {report.size} pixels, trained on the {report.training_images} images of "
        f"the training part and no others ({report.generator_epochs} epochs). A small ResNet is trained for "
        f"{report.classifier_steps} batches, the same in every arm, on all real images of the training part and a "
        f"share of generated ones, by each of {len(report.seeds)} seeds; classical augmentation is the control. "
        f"Accuracy on {report.test_images} real test images in {report.groups} groups, with 95 % intervals from "
        f"{report.resamples} resamples of whole groups, seeds averaged.",
        f"Groups by class: {', '.join(f'{name} {n}' for name, n in report.groups_by_class.items())}. With so few the "
        "intervals are too narrow rather than too wide.",
        table(
            ["augmentation", "generated images added", "accuracy", "by seed", "gain over none added", "p over seeds"],
            [
                [
                    "classical" if arm.classical else "none",
                    f"{arm.share:.0%}",
                    _estimate(arm.accuracy),
                    ", ".join(f"{a:.3f}" for a in arm.accuracies),
                    "" if arm.difference is None else _estimate(arm.difference),
                    "" if arm.seeds_p is None else f"{arm.seeds_p:.3f}",
                ]
                for arm in report.arms
            ],
        ),
        f"Classical augmentation alone, over none: {_estimate(report.classical_gain)}.",
        f"**{verdict(report)}**",
        "## The generated images",
        table(["measure", "generated", "unseen real images"], _quality(report.quality)),
        "`recognised`: share that a classifier trained on the real training images gives the class that they were made "
        "for. `Fréchet distance` to the training images in that classifier's features. `nearest`: median root mean "
        "square difference in grey levels to the nearest training image. `near copies`: share nearer to a training "
        "image than all but 5 % of unseen real ones. `spread`: mean difference between two images.",
        "## Provenance",
        table(
            ["", ""],
            [
                ["command", f"`{report.command}`"],
                ["date", report.date],
                ["checkpoint (SHA-256)", f"`{report.checkpoint_digest}`"],
                ["split (SHA-256)", f"`{report.split_digest}`"],
                ["processor", report.machine.processor],
            ],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def verdict(report: Experiment) -> str:
    """One sentence on what was found, from the intervals."""
    best = max(
        (arm for arm in report.arms if arm.difference), key=lambda arm: arm.difference.value if arm.difference else 0
    )
    helped = [arm.name for arm in report.arms if arm.difference is not None and arm.difference.low > 0]
    harmed = [arm.name for arm in report.arms if arm.difference is not None and arm.difference.high < 0]
    if helped:
        text = f"Better with generated images, beyond chance, in: {', '.join(helped)}."
    else:
        text = "In no arm do generated images raise accuracy beyond chance."
    if harmed:
        text += f" Worse beyond chance in: {', '.join(harmed)}."
    gain = best.difference.value if best.difference else 0.0
    return text + f" The largest gain is {gain:+.3f} ({best.name}); no allowance is made for trying several shares."


def _quality(quality: Quality) -> list[list[str]]:
    return [
        ["recognised, all", f"{quality.recognised['all']:.3f}", f"{quality.recognised_real:.3f}"],
        *([f"recognised, {n}", f"{v:.3f}", ""] for n, v in quality.recognised.items() if n != "all"),
        ["Fréchet distance", f"{quality.frechet['generated']:.2f}", f"{quality.frechet['unseen']:.2f}"],
        ["nearest", f"{quality.nearest_median['generated']:.1f}", f"{quality.nearest_median['unseen']:.1f}"],
        ["near copies", f"{quality.memorised_share:.3f}", "0.050"],
        ["spread", f"{quality.spread['generated']:.1f}", f"{quality.spread['unseen']:.1f}"],
    ]


def _estimate(value: Estimate) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
