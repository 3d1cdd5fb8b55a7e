"""From slices to series: how many slices to pool and how to calibrate them, fitted and measured by groups.

`service.series.pooling` has the formula. A series is what a patient's images of one weighting are; where
some of them show a finding, the others are one more series, without. Every patient or block counts once, however many
series it gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from service.series.pooling import calibrated, strongest
from training.bootstrap import Array, Estimate, Resamples, draw, estimate
from training.datasets.prepared import Prepared
from training.datasets.record import DatasetError
from training.metrics import auroc

CANDIDATES = (1, 2, 3, 5, 8)
LEAST = 5  # images without a finding that are a series
DEALT = 20  # images to a series where nobody knows whose they are
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
        typed: bool `[N]`: which class it is is known; otherwise only whether the class is a healthy one.
        kinds: where each series comes from, `[N]`.
    """

    rows: tuple[NDArray[np.int64], ...]
    labels: NDArray[np.int64]
    clusters: NDArray[np.int64]
    typed: NDArray[np.bool_]
    kinds: tuple[str, ...]

    @property
    def weights(self) -> Array:
        """Of each series, so that those of one cluster add up to 1: `[N]`."""
        _, inverse, counts = np.unique(self.clusters, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[inverse], np.float64)

    def pick(self, chosen: NDArray[np.bool_]) -> Samples:
        """Some of the series."""
        rows = tuple(self.rows[place] for place in np.flatnonzero(chosen))
        kinds = tuple(self.kinds[place] for place in np.flatnonzero(chosen))
        return Samples(rows, self.labels[chosen], self.clusters[chosen], self.typed[chosen], kinds)


@dataclass(frozen=True, slots=True)
class Fit:
    """The pooling, and the cross-validated loss (nats a group) of each number of slices that was tried."""

    strongest: int
    scale: float
    offset: float
    losses: dict[int, float]


def series_of(data: Prepared, clusters: NDArray[np.int64], healthy: NDArray[np.int64]) -> Samples:
    """Put images together to series: those of one source, group (patient or block) and weighting.

    A series is labelled with the most frequent label that is not healthy, if it has any. Of one with a finding the
    images without, if there are `LEAST` of them, are a series as well: what the same scanner shows of a head in which
    there is nothing to find. Images without a finding that are groups of their own, because their patient is not known,
    are dealt out to series of `DEALT`, those of one cluster next to each other.

    Args:
        data: images.
        clusters: int64 `[M]`, groups of theirs that are not independent.
        healthy: numbers of the healthy labels.
    """
    well = np.isin(data.labels, healthy)
    alone = well & np.array([group == name for group, name in zip(data.groups, data.ids, strict=True)], np.bool_)
    members: dict[tuple[str, str, str], list[int]] = {}
    dealt: dict[str, int] = {}
    for row in np.argsort(clusters, kind="stable").tolist():
        source, group = data.sources[row], data.groups[row]
        if alone[row]:
            dealt[source] = dealt.get(source, -1) + 1
            group = f"dealt {dealt[source] // DEALT}"
        members.setdefault((source, group, "" if alone[row] else data.weightings[row]), []).append(row)
    rows: list[NDArray[np.int64]] = []
    for one in (np.array(each, np.int64) for each in members.values()):
        rows.append(one)
        if not well[one].all() and well[one].sum() >= LEAST:
            rows.append(one[well[one]])
    shown = [one[~well[one]] if not well[one].all() else one for one in rows]
    return Samples(
        tuple(rows),
        np.array([np.bincount(data.labels[one]).argmax() for one in shown], np.int64),
        np.array([clusters[one[0]] for one in rows], np.int64),
        np.array([data.typed[one].all() for one in shown], np.bool_),
        tuple(f"{data.sources[one[0]]} {data.weightings[one[0]]}".strip() or "own" for one in rows),
    )


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
    scale, offset = _calibration(pooled, samples, unhealthy)
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
    finding against none; `sensitivity` and `specificity` at `threshold`; `accuracy` is of the most probable class, of
    series whose class is known.
    """
    drawn = draw(samples.clusters, samples.labels, resamples, seed)
    weights, present = samples.weights, np.isin(samples.labels, list(unhealthy))
    score = np.clip(probs[:, list(unhealthy)].sum(axis=1), 0, 1)
    called, right = score >= threshold, probs.argmax(axis=1) == samples.labels
    found = {
        "auroc": auroc(present, score, drawn),
        "accuracy": drawn.ratio(weights * (right & samples.typed), weights * samples.typed),
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
        losses[inside] = _losses(pooled[inside], held, unhealthy, *_calibration(pooled[~inside], known, unhealthy))
    return losses


def _smallest(losses: Array) -> int:
    """The first row of losses `[rules, clusters]` that is worse than the best by no more than one standard error.

    Few slices rather than many where the groups cannot tell: what fills one slice only must not be averaged away.
    """
    excess = losses - losses[losses.mean(axis=1).argmin()]
    error = excess.std(axis=1, ddof=1) / np.sqrt(excess.shape[1])
    return int(np.argmax(excess.mean(axis=1) <= error))


def _calibration(pooled: Array, samples: Samples, unhealthy: Sequence[int]) -> tuple[float, float]:
    """Find scale and offset of largest posterior probability."""

    def loss(values: Array) -> float:
        penalty = sum((value / spread) ** 2 / 2 for value, spread in zip(values, _SPREAD, strict=True))
        return float(_losses(pooled, samples, unhealthy, float(np.exp(values[0])), float(values[1])).sum() + penalty)

    found = minimize(loss, np.zeros(2))
    return float(np.exp(found.x[0])), float(found.x[1])


def _losses(pooled: Array, samples: Samples, unhealthy: Sequence[int], scale: float, offset: float) -> Array:
    """Compute the weighted cross-entropy of each series, nats `[N]`; for untyped ones of any finding against none."""
    logs = log_softmax(calibrated(pooled, unhealthy, scale, offset), axis=1)
    of_label = logs[np.arange(len(logs)), samples.labels]
    of_finding = logsumexp(logs[:, list(unhealthy)], axis=1)
    any_finding = ~samples.typed & np.isin(samples.labels, list(unhealthy))
    return -samples.weights * np.where(any_finding, of_finding, of_label)


def _calibration_error(score: Array, present: NDArray[np.bool_], weights: Array, drawn: Resamples) -> Estimate | None:
    place = np.digitize(score, np.linspace(0, 1, BINS + 1)[1:-1])
    gap = (weights * (present - score))[:, None] * np.eye(BINS)[place]
    value = float(np.abs(gap.sum(axis=0)).sum() / weights.sum())
    return estimate(value, np.abs(drawn.totals(gap)).sum(axis=1) / drawn.totals(weights))
