"""`python -m training evaluate`: measure a checkpoint on a part of the data that training did not see."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.measure import AllSources, Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `run`."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the report")
    parser.add_argument("--part", choices=("train", "validation", "test"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--bootstrap", type=_positive, default=2000, metavar="N", help="resamples (default: %(default)s)"
    )
    parser.add_argument("--size", type=_positive, metavar="PIXELS", help="input side (default: as prepared)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for prepared images (default: OUT/cache)")
    parser.add_argument("--no-shortcut", action="store_true", help="skip the measurement of the source shortcut")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and write `report.json`, `report.md`, `predictions.csv` and figures into OUT.

    Returns:
        0.

    Raises:
        DatasetError: the dataset is not what the checkpoint was trained on, or a part is empty.
        FileNotFoundError: checkpoint or split file is missing.
    """
    from training.measure import evaluate

    evaluation = evaluate(
        arguments.checkpoint,
        arguments.data,
        arguments.cache or arguments.out / "cache",
        part=arguments.part,
        resamples=arguments.bootstrap,
        size=arguments.size,
        seed=arguments.seed,
        shortcut=not arguments.no_shortcut,
        command=_command(arguments),
    )
    save_evaluation(evaluation, arguments.out)
    return 0


def save_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write the report's files into a folder, and print a table.

    `report.json`, `report.md`, `predictions.csv`, figures and, where records know their source, `sources.csv`.
    """
    from training.figures import save_figures
    from training.report import save_report

    figures = save_figures(evaluation.report, out)
    _save_predictions(evaluation, out / "predictions.csv")
    if evaluation.sources is not None:
        _save_sources(evaluation.sources, evaluation.report.classes, out / "sources.csv")
    save_report(evaluation.report, out, figures)
    _print(evaluation)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _command(arguments: argparse.Namespace) -> str:
    """The command that repeats the evaluation, with places of this machine left out."""
    checkpoint: Path = arguments.checkpoint
    words = ["python -m training evaluate", f"{checkpoint.resolve().parent.name}/{checkpoint.name}", "DATA", "OUT"]
    words += [f"--part {arguments.part}", f"--bootstrap {arguments.bootstrap}", f"--seed {arguments.seed}"]
    if arguments.size is not None:
        words.append(f"--size {arguments.size}")
    if arguments.no_shortcut:
        words.append("--no-shortcut")
    return " ".join(words)


def _save_predictions(evaluation: Evaluation, path: Path) -> None:
    """One row an image, for tests between models (see `training.statistics`)."""
    import csv
    from io import StringIO

    from training.files import write_atomically

    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    classes = evaluation.report.classes
    writer.writerow(["id", "group", "label", "predicted", *(f"p_{name}" for name in classes)])
    rows = zip(evaluation.data.ids, evaluation.groups, evaluation.data.labels, evaluation.probabilities, strict=True)
    for name, group, label, row in rows:
        writer.writerow([name, group, classes[label], classes[row.argmax()], *(f"{p:.6f}" for p in row)])
    write_atomically(path, buffer.getvalue().encode())


def _save_sources(sources: AllSources, classes: Sequence[str], path: Path) -> None:
    """One row an image of all sources; `score` is the logarithm of the odds of any finding."""
    import csv
    from io import StringIO

    from training.files import write_atomically
    from training.sources import lesion_shares

    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", "group", "source", "sequence", "plane", "level", "label", "typed", "lesion_share", "score"])
    data = sources.data
    columns = (data.ids, sources.groups, data.sources, data.weightings, data.planes, data.levels, data.labels)
    for *known, level, label, typed, share, score in zip(
        *columns, data.typed, lesion_shares(data), sources.answers.scores, strict=True
    ):
        numbers = ["" if np.isnan(value) else f"{value:.6g}" for value in (level, share)]
        writer.writerow([*known, numbers[0], classes[label], typed, numbers[1], f"{score:.6f}"])
    write_atomically(path, buffer.getvalue().encode())


def _print(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    report = evaluation.report
    table = Table(title=f"{report.network}, {report.part} part: {report.images} images, {report.groups} groups")
    for title in ("metric", "value", "95 % interval"):
        table.add_column(title)
    for values in (report.metrics, report.localisation, report.shortcut):
        for name, value in values.items():
            if values is not report.metrics or "/" not in name:
                table.add_row(name, f"{value.value:.4f}", f"{value.low:.4f} to {value.high:.4f}")
        table.add_section()
    Console().print(table)
