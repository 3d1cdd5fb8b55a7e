"""Classification metrics with confidence intervals.

Values are scikit-learn's and torchmetrics'. Their intervals need the same metrics for thousands of resamples at once:
`from_confusion` and `resampled_auroc` compute them from sums by group, and the tests hold both to be equal.

Classes without an image in the part are left out of the averages; a class that is never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torchmetrics.functional.classification import multiclass_specificity

from training.bootstrap import Array, Estimate, Resamples, estimate

Labels = NDArray[np.int64]
BY_CLASS = ("precision", "recall", "f1", "f2", "specificity")


def classification(
    labels: Labels, probabilities: Array, classes: Sequence[str], resamples: Resamples
) -> dict[str, Estimate]:
    """All metrics of a classifier by name; `name/class` is the value of one class, `name` the mean over classes.

    Args:
        labels: int64 `[N]`.
        probabilities: float64 `[N, K]`, rows sum to 1.
        classes: K names.
        resamples: of the N images.
    """
    predicted = probabilities.argmax(axis=1)
    values = _names(point_metrics(labels, predicted, len(classes)), classes)
    samples = _names(from_confusion(resampled_confusion(labels, predicted, len(classes), resamples)), classes)
    pairs = {name: (float(values[name]), samples[name]) for name in values}
    areas: list[tuple[float, Array]] = []
    for number, name in enumerate(classes):
        positive = labels == number
        if 0 < positive.sum() < len(labels):
            areas.append(_area(positive, probabilities[:, number], resamples))
            pairs[f"auroc/{name}"] = areas[-1]
    if areas:
        pairs["auroc"] = float(np.mean([v for v, _ in areas])), np.mean([s for _, s in areas], axis=0)
    found = {name: estimate(value, sample) for name, (value, sample) in pairs.items()}
    return {name: value for name, value in found.items() if value is not None}


def binary(
    present: NDArray[np.bool_], called: NDArray[np.bool_], resamples: Resamples, prefix: str = ""
) -> dict[str, Estimate]:
    """Accuracy, sensitivity, specificity and balanced accuracy of a yes-or-no call, bool `[N]` each.

    A value without an image to count on is left out.
    """
    correct = present == called
    found = {
        "accuracy": resamples.ratio(correct),
        "sensitivity": resamples.ratio(correct & present, present),
        "specificity": resamples.ratio(correct & ~present, ~present),
    }
    if found["sensitivity"] is not None and found["specificity"] is not None:
        matrices = resampled_confusion(present.astype(np.int64), called.astype(np.int64), 2, resamples)
        mean = (found["sensitivity"].value + found["specificity"].value) / 2
        found["balanced_accuracy"] = estimate(mean, from_confusion(matrices)["balanced_accuracy"])
    return {prefix + name: value for name, value in found.items() if value is not None}


def auroc(present: NDArray[np.bool_], scores: Array, resamples: Resamples) -> Estimate | None:
    """Area under the ROC curve of scores `[N]`; None where one of the two classes has no image."""
    if not 0 < present.sum() < len(present):
        return None
    return estimate(*_area(present, scores, resamples))


def point_metrics(labels: Labels, predicted: Labels, classes: int) -> dict[str, float | Array]:
    """The values themselves, by scikit-learn and torchmetrics; per-class values are `[K]`, NaN for absent classes."""
    present = np.unique(labels)
    result: dict[str, float | Array] = {
        "accuracy": float(accuracy_score(labels, predicted)),
        "kappa": float(cohen_kappa_score(labels, predicted)) if _several(labels, predicted) else float("nan"),
        "mcc": float(matthews_corrcoef(labels, predicted)),
    }
    for beta in (1.0, 2.0):
        rows = precision_recall_fscore_support(
            labels,
            predicted,
            beta=beta,
            labels=present,
            zero_division=0.0,  # pyright: ignore[reportArgumentType]
        )
        for name, row in zip(("precision", "recall", f"f{beta:.0f}"), rows, strict=False):
            result[name] = _filled(np.asarray(row), present, classes)
    by_class = multiclass_specificity(
        torch.from_numpy(predicted), torch.from_numpy(labels), num_classes=classes, average="none"
    )
    result["specificity"] = _filled(by_class.double().numpy()[present], present, classes)
    if len(present) < 2:
        result["specificity"] = np.full(classes, np.nan)
    result["balanced_accuracy"] = float(np.nanmean(result["recall"]))
    return result


def resampled_confusion(labels: Labels, predicted: Labels, classes: int, resamples: Resamples) -> Array:
    """Confusion matrices of the resamples, `[R, K, K]`, rows are labels."""
    cells = np.zeros((resamples.groups, classes, classes))
    np.add.at(cells, (resamples.group, labels, predicted), 1)
    return np.tensordot(resamples.counts, cells, axes=1)


def from_confusion(matrices: Array) -> dict[str, Array]:
    """The metrics of confusion matrices `[R, K, K]`: `[R]`, and `[R, K]` for those that each class has.

    Kappa after Cohen (1960), MCC for several classes after Gorodkin (2004).
    """
    total = matrices.sum(axis=(1, 2))
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    actual, called = matrices.sum(axis=2), matrices.sum(axis=1)
    absent = actual == 0
    result: dict[str, Array] = {"accuracy": hits.sum(axis=1) / total}
    result["recall"] = _ratio(hits, actual, np.nan)
    result["precision"] = np.where(absent, np.nan, _ratio(hits, called, 0.0))
    for beta in (1, 2):
        weight = beta**2
        result[f"f{beta}"] = np.where(absent, np.nan, _ratio((1 + weight) * hits, weight * actual + called, np.nan))
    others = total[:, None] - actual
    result["specificity"] = np.where(absent, np.nan, _ratio(others - called + hits, others, np.nan))
    known = ~absent
    result["balanced_accuracy"] = np.where(absent, 0.0, result["recall"]).sum(axis=1) / known.sum(axis=1)
    chance = (actual * called).sum(axis=1)
    agreed = hits.sum(axis=1) * total
    result["kappa"] = _ratio(agreed - chance, total**2 - chance, np.nan)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (called**2).sum(axis=1))
    result["mcc"] = _ratio(agreed - chance, np.sqrt(spread), 0.0)
    return result


def resampled_auroc(present: NDArray[np.bool_], scores: Array, resamples: Resamples) -> Array:
    """Area under the ROC curve of every resample, `[R]`, NaN where one class was not drawn.

    The area is the share of (present, absent) pairs in the right order, ties counting half (Mann and Whitney, 1947);
    the pairs are counted once for each pair of groups, so that a resample is one quadratic form.
    """
    above, below = scores[present], scores[~present]
    wins = np.zeros((resamples.groups, resamples.groups))
    rows = resamples.group[present]
    absent_group = resamples.group[~present]
    for group in np.unique(absent_group):  # one group at a time bounds the memory
        order = np.sort(below[absent_group == group])
        won = (np.searchsorted(order, above, "left") + np.searchsorted(order, above, "right")) / 2
        wins[:, group] = np.bincount(rows, weights=won, minlength=resamples.groups)
    pairs = resamples.totals(present) * resamples.totals(~present)
    return _ratio(np.einsum("rg,rg->r", resamples.counts @ wins, resamples.counts), pairs, np.nan)


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Confusion matrix `[K, K]`, rows are labels."""
    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(classes)), np.int64)


def _area(present: NDArray[np.bool_], scores: Array, resamples: Resamples) -> tuple[float, Array]:
    return float(roc_auc_score(present, scores)), resampled_auroc(present, scores, resamples)


def _names(values: Mapping[str, float | Array], classes: Sequence[str]) -> dict[str, Array]:
    """One entry for each value, and for those by class the mean over the classes that are present."""
    result: dict[str, Array] = {}
    for name, value in values.items():
        if name not in BY_CLASS:
            result[name] = np.asarray(value)
            continue
        rows = np.asarray(value)
        known = np.isfinite(rows)
        result[name] = _ratio(np.where(known, rows, 0.0).sum(axis=-1), known.sum(axis=-1), np.nan)
        result |= {f"{name}/{label}": rows[..., number] for number, label in enumerate(classes)}
    return result


def _several(labels: Labels, predicted: Labels) -> bool:
    """Kappa is not defined where all labels and all predictions are one class."""
    return len(np.unique(np.concatenate([labels, predicted]))) > 1


def _filled(values: NDArray[np.generic], present: Labels, classes: int) -> Array:
    row = np.full(classes, np.nan)
    row[present] = values
    return row


def _ratio(above: Array, below: NDArray[np.generic], otherwise: float) -> Array:
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    return np.divide(above, below, out=np.full(shape, otherwise), where=np.asarray(below) != 0)
