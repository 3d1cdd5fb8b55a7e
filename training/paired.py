"""Two models, or two explanation methods, on the same cases: is one better?

Reads what `python -m training evaluate` leaves (`predictions.csv`), or any CSV file with a score for each case.
Accuracy: McNemar. The Brier score of each case (Brier, Mon. Weather Rev. 78 (1950) 1), or the given score: paired
t-test, with Wilcoxon's beside it. AUROC of disease: DeLong. These take cases as independent; where several are of one
patient, the intervals from resampled groups are the ones to go by, and so is the t-test over the groups' means.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from service.validation import Strict
from training.bootstrap import Estimate, Resamples, draw, estimate
from training.datasets.record import DatasetError
from training.delong import AreaComparison, compare_areas
from training.statistics import McNemar, NoTest, PairedComparison, compare_paired, mcnemar

Array = NDArray[np.float64]
PREDICTIONS = "predictions.csv"


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of one model. Either `probabilities` `[N, K]` for the classes, with labels, or `scores` `[N]` alone.

    `ids` and `groups` have a name for each case; `labels` int64 `[N]`.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: Array
    scores: Array | None


class Comparison(Strict):
    """First less second, on `cases` cases in `groups` groups. None where a test does not apply or cannot be made.

    `accuracy` and `auroc` are differences with intervals from resampled groups; `score` is the paired comparison of
    `scored` (the Brier score, of which less is better, or the files' own score), and `by_group` that of its group
    means.
    """

    cases: int
    groups: int
    scored: str
    score: PairedComparison | None
    by_group: PairedComparison | None
    mcnemar: McNemar | None = None
    delong: AreaComparison | None = None
    accuracy: Estimate | None = None
    auroc: Estimate | None = None
    resamples: int
    seed: int


def read_predictions(path: Path, score: str = "score") -> Predictions:
    """Read `predictions.csv`, or the folder that holds it, or a CSV file with the columns `id` and `score`.

    Args:
        path: file or folder.
        score: the score's column, where there are no probabilities (`p_CLASS`).

    Raises:
        FileNotFoundError: there is none.
        DatasetError: a column is missing, or a line is broken; the message names file, line and column.
    """
    path = path / PREDICTIONS if path.is_dir() else path
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        head = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    shares = [name for name in head if name.startswith("p_")]
    numbers = shares or [score]
    missing = {"id", *numbers, *(["label"] if shares else [])} - set(head)
    if missing:
        raise DatasetError(f"{path.name} line 1: no column {', '.join(sorted(missing))}")
    values = np.array([[_number(row, name, path, line) for name in numbers] for line, row in rows], np.float64)
    ids = tuple(row["id"] for _, row in rows)
    if not ids or len(set(ids)) < len(ids):
        raise DatasetError(f"{path.name}: {'an id is there twice' if ids else 'no cases'}")
    classes = tuple(name.removeprefix("p_") for name in shares)
    labels = [_label(row, classes, path, line) for line, row in rows] if shares else [0] * len(ids)
    groups = tuple(row.get("group") or row["id"] for _, row in rows)
    return Predictions(ids, groups, classes, np.array(labels, np.int64), values, None if shares else values[:, 0])


def compare(
    first: Predictions, second: Predictions, *, healthy: tuple[str, ...] = (), resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two models on the same cases, in any order.

    Args:
        first: predictions or scores.
        second: of the same cases and classes.
        healthy: classes that are no disease; needed for the AUROC.
        resamples: of the groups.
        seed: of the resamples.

    Raises:
        DatasetError: cases, labels or classes differ, or a healthy class is not among them.
    """
    second = _in_order(second, first, healthy)
    resampled = draw(first.groups, first.labels, resamples, seed)
    if first.scores is not None and second.scores is not None:
        return _scored(first.scores - second.scores, resampled, "score", seed)
    labels = first.labels
    one, two = first.probabilities, second.probabilities
    scored = _scored(_brier(one, labels) - _brier(two, labels), resampled, "Brier score", seed)
    right = one.argmax(axis=1) == labels, two.argmax(axis=1) == labels
    found: dict[str, object] = {
        "mcnemar": mcnemar(*right),
        "accuracy": resampled.ratio(right[0].astype(np.float64) - right[1]),
    }
    diseased = np.array([name not in healthy for name in first.classes])
    if healthy and min(np.bincount(diseased[labels].astype(int), minlength=2)) > 1:
        scores = one[:, diseased].sum(axis=1), two[:, diseased].sum(axis=1)
        found["delong"] = compare_areas(*scores, diseased[labels])
        found["auroc"] = _resampled_areas(*scores, diseased[labels], resampled)
    return scored.model_copy(update=found)


def _in_order(second: Predictions, first: Predictions, healthy: tuple[str, ...]) -> Predictions:
    """The second one's cases in the order of the first, once both are found to be of the same cases."""
    if set(first.ids) != set(second.ids):
        shared = len(set(first.ids) & set(second.ids))
        raise DatasetError(f"not the same cases: {len(first.ids)} and {len(second.ids)}, {shared} in common")
    if first.classes != second.classes:
        raise DatasetError("not the same classes, or not in the same order")
    if unknown := set(healthy) - set(first.classes):
        raise DatasetError(f"no class {', '.join(sorted(unknown))}")
    place = {name: number for number, name in enumerate(second.ids)}
    order = np.array([place[name] for name in first.ids])
    if not np.array_equal(first.labels, second.labels[order]):
        raise DatasetError("the labels of the same cases differ")
    scores = None if second.scores is None else second.scores[order]
    return replace(
        second,
        ids=first.ids,
        groups=first.groups,
        labels=first.labels,
        probabilities=second.probabilities[order],
        scores=scores,
    )


def _scored(gap: Array, resampled: Resamples, name: str, seed: int) -> Comparison:
    """The part that every comparison has, from each case's difference `[N]`."""
    means = resampled.by_group(gap) / resampled.by_group(np.ones(len(gap)))
    return Comparison(
        cases=len(gap),
        groups=resampled.groups,
        scored=name,
        score=_paired(gap),
        by_group=_paired(means),
        resamples=len(resampled.counts),
        seed=seed,
    )


def _paired(gap: Array) -> PairedComparison | None:
    try:
        return compare_paired(gap, np.zeros_like(gap))
    except NoTest:
        return None


def _resampled_areas(first: Array, second: Array, positive: NDArray[np.bool_], resampled: Resamples) -> Estimate | None:
    """Difference of the AUROC, with the interval of resampled groups."""

    def gap(weight: Array | None) -> float:
        areas = (float(roc_auc_score(positive, scores, sample_weight=weight)) for scores in (first, second))
        return next(areas) - next(areas)

    weights = resampled.counts[:, resampled.group]
    both = [bool(weight[positive].any() and weight[~positive].any()) for weight in weights]
    samples = [gap(weight) if defined else np.nan for weight, defined in zip(weights, both, strict=True)]
    return estimate(gap(None), np.array(samples))


def _brier(probabilities: Array, labels: NDArray[np.int64]) -> Array:
    """Of each case `[N]`: 0 is best, 2 is worst."""
    return np.square(probabilities - np.eye(probabilities.shape[1])[labels]).sum(axis=1)


def _number(row: dict[str, str], name: str, path: Path, line: int) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value):
        raise DatasetError(f"{path.name} line {line}, column {name}: not a number")
    return value


def _label(row: dict[str, str], classes: tuple[str, ...], path: Path, line: int) -> int:
    if row["label"] not in classes:
        raise DatasetError(f"{path.name} line {line}, column label: no such class")
    return classes.index(row["label"])


def print_comparison(found: Comparison) -> None:
    """Print what was found."""
    table = Table("test", "first less second", "p", title=f"{found.cases} cases in {found.groups} groups")
    for over, test in (("cases", found.score), ("group means", found.by_group)):
        if test is not None:
            value = f"{test.difference:.4f} ({test.low:.4f} to {test.high:.4f}), dz {test.effect:.2f}"
            table.add_row(f"{found.scored}, paired t over {over}", value, f"{test.p:.4g}")
            table.add_row(f"{found.scored}, Wilcoxon over {over}", "", f"{test.wilcoxon_p:.4g}")
    if found.mcnemar is not None:
        value = f"right only in first {found.mcnemar.only_first}, only in second {found.mcnemar.only_second}"
        table.add_row("McNemar, exact (mid-p)", value, f"{found.mcnemar.p:.4g} ({found.mcnemar.mid_p:.4g})")
    if found.delong is not None:
        area = found.delong
        value = f"{area.first:.4f} - {area.second:.4f} = {area.difference:.4f} ({area.low:.4f} to {area.high:.4f})"
        table.add_row("AUROC, DeLong", value, f"{area.p:.4g}")
    for name, value in (("accuracy", found.accuracy), ("AUROC", found.auroc)):
        if value is not None:
            table.add_row(f"{name}, groups resampled", str(value), "")
    Console().print(table)
