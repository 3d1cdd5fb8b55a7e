"""From slices to series: how many slices to pool and how to calibrate them, fitted and measured by groups.

`service.series.pooling` has the formula. A series is a patient's images, or, where the data hold no series, one
composed of slices: `composed` says how. Every patient, block or healthy series counts once, however
many series it gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from service.series.pooling import calibrated, strongest
from training.bootstrap import Array, Estimate, Resamples, draw, estimate
from training.datasets.record import DatasetError
from training.metrics import auroc

CANDIDATES = (1, 2, 3, 5, 8)
CARRYING = (1, 2, 5, 10, 20)  # slices of a composed series that show the finding
FOLDS = 5
BINS = 10
_SPREAD = (1.0, 2.0)  # of the normal priors on log(scale) and offset: identity, unless the series say otherwise


@dataclass(frozen=True, slots=True)
class Samples:
    """Series by the images that they are made of.

    Attributes:
        rows: numbers of the images of each series.
        labels: int64 `[N]`, of the series.
        clusters: int64 `[N]`; series of one cluster are not independent.
        carrying: int64 `[N]`, how many images show what the series is labelled with; 0 for healthy ones.
    """

    rows: tuple[NDArray[np.int64], ...]
    labels: NDArray[np.int64]
    clusters: NDArray[np.int64]
    carrying: NDArray[np.int64]

    @property
    def weights(self) -> Array:
        """Of each series, so that those of one cluster add up to 1: `[N]`."""
        _, inverse, counts = np.unique(self.clusters, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[inverse], np.float64)

    def pick(self, chosen: NDArray[np.bool_]) -> Samples:
        """Some of the series."""
        rows = tuple(self.rows[place] for place in np.flatnonzero(chosen))
        return Samples(rows, self.labels[chosen], self.clusters[chosen], self.carrying[chosen])


@dataclass(frozen=True, slots=True)
class Fit:
    """The pooling, and the cross-validated loss (nats a group) of each number of slices that was tried."""

    strongest: int
    scale: float
    offset: float
    losses: dict[int, float]


def by_group(
    groups: Sequence[str], labels: NDArray[np.int64], clusters: NDArray[np.int64], healthy: NDArray[np.int64]
) -> Samples:
    """One series of each group; it is labelled with the most frequent label that is not healthy, if it has any."""
    names = np.asarray(groups)
    rows = tuple(np.flatnonzero(names == name) for name in dict.fromkeys(groups))
    found: list[tuple[int, int]] = []
    for members in rows:
        ill = labels[members][~np.isin(labels[members], healthy)]
        label = int(np.bincount(ill if len(ill) else labels[members]).argmax())
        found.append((label, int((ill == label).sum())))
    table = np.array(found, np.int64).reshape(-1, 2)
    return Samples(rows, table[:, 0], np.array([clusters[members[0]] for members in rows], np.int64), table[:, 1])


def composed(
    groups: Sequence[str],
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    healthy: NDArray[np.int64],
    *,
    slices: int,
    seed: int,
) -> Samples:
    """Series of `slices` images each, for data whose groups hold diseased images only or healthy ones only.

    Healthy images are dealt out once, near copies next to each other. Of every other group come series in which 1, 2,
    5, 10 or all images (`CARRYING`, no more than the group has) are neighbours from it and the rest healthy.
    """
    random = np.random.default_rng(seed)
    well = np.flatnonzero(np.isin(labels, healthy))
    place = random.permutation(int(clusters.max()) + 1)[clusters[well]]
    well = well[np.argsort(place, kind="stable")]
    rows = [well[start : start + slices] for start in range(0, len(well) - slices + 1, slices)]
    facts = [(int(labels[members[0]]), -1 - number, 0) for number, members in enumerate(rows)]
    names = np.asarray(groups)
    for name in dict.fromkeys(names[~np.isin(labels, healthy)].tolist()):
        members = np.flatnonzero(names == name)
        for carrying in sorted({min(count, len(members), slices) for count in CARRYING}):
            start = int(random.integers(0, len(members) - carrying + 1))
            filler = random.choice(well, slices - carrying, replace=False)
            rows.append(np.concatenate([members[start : start + carrying], filler]))
            facts.append((int(labels[members[0]]), int(clusters[members[0]]), carrying))
    table = np.array(facts, np.int64).reshape(-1, 3)
    return Samples(tuple(rows), table[:, 0], table[:, 1], table[:, 2])


def fit(scaled: Array, samples: Samples, unhealthy: Sequence[int]) -> Fit:
    """Choose the number of slices by cross-validation over clusters, then scale and offset on all of them.

    Of the numbers that cannot be told from the best (one standard error of the difference) the smallest is taken.

    Args:
        scaled: logits `[M, K]` of the images, divided by the temperature.
        samples: series of them.
        unhealthy: numbers of the labels that are not healthy.

    Raises:
        DatasetError: there are too few clusters to cross-validate.
    """
    _, cluster = np.unique(samples.clusters, return_inverse=True)
    if cluster.max() + 1 < 2 * FOLDS:
        raise DatasetError(f"pooling cannot be fitted on fewer than {2 * FOLDS} groups")
    fold = _folds(cluster, samples.labels)
    losses = np.stack(
        [_held_out(pool_rows(scaled, samples, unhealthy, n), samples, unhealthy, fold) for n in CANDIDATES]
    )
    by_cluster = losses @ np.eye(int(cluster.max()) + 1)[cluster]
    best = CANDIDATES[_smallest(by_cluster)]
    pooled = pool_rows(scaled, samples, unhealthy, best)
    scale, offset = _calibration(pooled, samples.weights, samples.labels, unhealthy)
    means = by_cluster.mean(axis=1).tolist()
    return Fit(best, scale, offset, dict(zip(CANDIDATES, means, strict=True)))


def pool_rows(scaled: Array, samples: Samples, unhealthy: Sequence[int], count: int) -> Array:
    """Mean logits of the `count` strongest images of each series: `[N, K]`."""
    rows = (scaled[members] for members in samples.rows)
    return np.stack([each[strongest(each, unhealthy, count)].mean(axis=0) for each in rows])


def series_probabilities(scaled: Array, samples: Samples, unhealthy: Sequence[int], found: Fit) -> Array:
    """Calibrated probabilities of each series by class: `[N, K]`."""
    pooled = pool_rows(scaled, samples, unhealthy, found.strongest)
    return np.asarray(softmax(calibrated(pooled, unhealthy, found.scale, found.offset), axis=1))


def measure(
    probs: Array, samples: Samples, unhealthy: Sequence[int], threshold: float, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """How good pooled probabilities are; every cluster counts once, intervals are of the cluster bootstrap.

    `auroc`, `brier` (0..1), `ece` (10 bins) and `excess` (mean probability minus share of the diseased) are of any
    finding against none; `sensitivity` and `specificity` at `threshold`; `accuracy` is of the most probable class.
    """
    drawn = draw(samples.clusters, samples.labels, resamples, seed)
    weights, present = samples.weights, np.isin(samples.labels, list(unhealthy))
    score = np.clip(probs[:, list(unhealthy)].sum(axis=1), 0, 1)
    called, right = score >= threshold, probs.argmax(axis=1) == samples.labels
    found = {
        "auroc": auroc(present, score, drawn),
        "accuracy": drawn.ratio(weights * right, weights),
        "sensitivity": drawn.ratio(weights * (called & present), weights * present),
        "specificity": drawn.ratio(weights * (~called & ~present), weights * ~present),
        "brier": drawn.ratio(weights * (score - present) ** 2, weights),
        "ece": _calibration_error(score, present, weights, drawn),
        "excess": drawn.ratio(weights * (score - present), weights),
    }
    return {name: value for name, value in found.items() if value is not None}


def _folds(cluster: NDArray[np.intp], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold of each series `[N]`: clusters are dealt out in turn, label by label."""
    first = np.unique(cluster, return_index=True)[1]
    order = np.argsort(labels[first], kind="stable")
    dealt = np.empty(len(first), np.int64)
    dealt[order] = np.arange(len(first)) % FOLDS
    return dealt[cluster]


def _held_out(pooled: Array, samples: Samples, unhealthy: Sequence[int], fold: NDArray[np.int64]) -> Array:
    """Weighted cross-entropy of each series `[N]`, calibrated on the other folds."""
    losses = np.zeros(len(pooled))
    for number in range(FOLDS):
        inside = fold == number
        known, held = samples.pick(~inside), samples.pick(inside)
        found = _calibration(pooled[~inside], known.weights, known.labels, unhealthy)
        losses[inside] = _losses(pooled[inside], held.weights, held.labels, unhealthy, *found)
    return losses


def _smallest(losses: Array) -> int:
    """The first row of losses `[rules, clusters]` that is worse than the best by no more than one standard error.

    Few slices rather than many where the groups cannot tell: what fills one slice only must not be averaged away.
    """
    excess = losses - losses[losses.mean(axis=1).argmin()]
    error = excess.std(axis=1, ddof=1) / np.sqrt(excess.shape[1])
    return int(np.argmax(excess.mean(axis=1) <= error))


def _calibration(
    pooled: Array, weights: Array, labels: NDArray[np.int64], unhealthy: Sequence[int]
) -> tuple[float, float]:
    """Scale and offset of largest posterior probability."""

    def loss(values: Array) -> float:
        penalty = sum((value / spread) ** 2 / 2 for value, spread in zip(values, _SPREAD, strict=True))
        return float(
            _losses(pooled, weights, labels, unhealthy, float(np.exp(values[0])), float(values[1])).sum() + penalty
        )

    found = minimize(loss, np.zeros(2))
    return float(np.exp(found.x[0])), float(found.x[1])


def _losses(
    pooled: Array, weights: Array, labels: NDArray[np.int64], unhealthy: Sequence[int], scale: float, offset: float
) -> Array:
    """Weighted cross-entropy of each series, nats: `[N]`."""
    logs = log_softmax(calibrated(pooled, unhealthy, scale, offset), axis=1)
    return -weights * logs[np.arange(len(logs)), labels]


def _calibration_error(score: Array, present: NDArray[np.bool_], weights: Array, drawn: Resamples) -> Estimate | None:
    place = np.digitize(score, np.linspace(0, 1, BINS + 1)[1:-1])
    gap = (weights * (present - score))[:, None] * np.eye(BINS)[place]
    value = float(np.abs(gap.sum(axis=0)).sum() / weights.sum())
    return estimate(value, np.abs(drawn.totals(gap)).sum(axis=1) / drawn.totals(weights))
