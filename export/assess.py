"""Fit and measure what decides whether an image is of a model's kind: scores, their limits, shares by kind of image.

A limit lies so that of own validation images a stated share reaches it. Several scores share it: the limit of each lies
at the same tail of its own values, and the tail is as long as the images that reach any limit allow. Every source
counts the same, however many images it has, and none may lose many more than the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.familiarity import Familiarity, fit_familiarity, scores_of
from export.foreign import TURNED
from export.provenance import estimates
from service.manifest import Gate, GateScore, TypeScore
from service.types import Float
from training.bootstrap import Estimate as Measured
from training.bootstrap import Resamples, draw

_REASONS = {
    "distance": "the image is unlike those that the model was trained on",
    "foreign": "the image looks like something that the model is not for",
    "turned": "the image lies upside down or on its side",
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of own images, 0..1.

    Attributes:
        doubtful: doubtful or refused, mean over the sources.
        refused: refused, mean over the sources.
        worst: of one source, so many times the mean at most.
        not_assessed: of images on which the label can be judged, called such that it cannot, mean over the sources.
    """

    doubtful: float = 0.03
    refused: float = 0.01
    worst: float = 2.0
    not_assessed: float = 0.05


@dataclass(frozen=True, slots=True)
class Own:
    """Images of the model's kind.

    Attributes:
        summaries: float32 `[N, F]`.
        sources: where each comes from, `[N]`.
        groups: patient or block of each, `[N]`.
        typed: whether the finding's label can be judged on it, bool `[N]`; None: on every image.
    """

    summaries: Float
    sources: NDArray[np.str_]
    groups: NDArray[np.str_]
    typed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Others:
    """Images of other kinds: summaries float32 `[N, F]`, and what each is, `[N]`."""

    summaries: Float
    kinds: NDArray[np.str_]

    def pick(self, rows: NDArray[np.bool_]) -> Others:
        """Take some of the images."""
        return Others(self.summaries[rows], self.kinds[rows])


def fit_gate(
    train: Own,
    validation: Own,
    foreign: Others,
    *,
    fitted_on: str,
    type_reason: str = "",
    test: Own | None = None,
    foreign_test: Others | None = None,
    shares: Shares | None = None,
    resamples: int = 2000,
    command: str = "",
    date: str = "",
) -> tuple[Familiarity, Gate]:
    """Fit the scores and their limits, and measure them.

    Args:
        train: own images that the scores are fitted on.
        validation: own images that the limits are chosen on.
        foreign: foreign images that the scores are fitted on.
        fitted_on: all of these in words.
        type_reason: what people are told where the label cannot be judged; needed where `train.typed` is given.
        test: own images that no choice looked at; None: nothing is measured.
        foreign_test: foreign images that no choice looked at. What is measured as `unfitted` is how many of a kind are
            found by scores that were fitted without this kind.
        shares: of own images that may be called doubtful and refused.
        resamples: how many bootstrap resamples the intervals come from.
        command: that repeats it.
        date: of that, ISO 8601.

    Returns:
        The scores, for the graph, and what the manifest says of them.

    Raises:
        ValueError: images are missing, or a type score is wanted and the reason is not.
    """
    if train.typed is not None and not type_reason:
        raise ValueError("images differ in whether their label can be judged, and there is no reason to tell people")
    shares = shares or Shares()
    familiarity, gate = _fit(train, validation, foreign, type_reason, shares)
    metrics: dict[str, Measured] = {}
    if test is not None:
        metrics |= _own_metrics(familiarity, gate, test, resamples)
    if foreign_test is not None:
        metrics |= _shares_found(familiarity, gate, foreign_test, "foreign", resamples)
        for kind in tqdm(np.unique(foreign_test.kinds).tolist(), desc="without each kind", unit="kind", leave=False):
            rest = foreign.pick(foreign.kinds != kind)
            if not len(rest.kinds) or len(rest.kinds) == len(foreign.kinds):
                continue  # the scores are the same, or there is nothing to fit them on
            without = _fit(train, validation, rest, type_reason, shares)
            metrics |= _shares_found(*without, foreign_test.pick(foreign_test.kinds == kind), "unfitted", resamples)
    gate = gate.model_copy(
        update={"fitted_on": fitted_on, "metrics": estimates(metrics), "command": command, "date": date}
    )
    return familiarity, gate


def choose_limits(
    scores: Float, sources: NDArray[np.str_], share: float, worst: float
) -> tuple[NDArray[np.float32], float]:
    """Choose one limit for each score so that few own images reach any.

    Args:
        scores: float32 `[N, G]`; larger is farther.
        sources: of the images, `[N]`.
        share: of images that may reach a limit, mean over the sources.
        worst: of one source at most so many times the share; it may always lose one image.

    Returns:
        Limits float32 `[G]`, and the share that reaches any.
    """
    _, source, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    weight = 1 / (len(sizes) * sizes[source])
    tails = np.stack([_tail(column, weight) for column in scores.T], axis=1)  # share of images at least as far
    order = np.argsort(tails.min(axis=1), kind="stable")
    depth = tails.min(axis=1)[order]
    reached = np.cumsum(weight[order])
    lost = np.cumsum(np.eye(len(sizes))[source[order]], axis=0)
    allowed = (reached <= share + 1e-9) & (lost <= np.ceil(worst * share * sizes)).all(axis=1)
    last_of_tie = np.append(depth[1:] != depth[:-1], True)
    fits = np.flatnonzero(np.logical_and.accumulate(allowed) & last_of_tie)
    depth_kept = depth[fits[-1]] if len(fits) else 0.0
    limits = [_between(column, tail <= depth_kept) for column, tail in zip(scores.T, tails.T, strict=True)]
    return np.array(limits, np.float32), float(reached[fits[-1]]) if len(fits) else 0.0


def _tail(values: Float, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the weight of all images that score at least as high, for each, `[N]`."""
    levels, place = np.unique(values, return_inverse=True)
    by_level = np.bincount(place, weights=weight, minlength=len(levels))
    return np.asarray(np.cumsum(by_level[::-1])[::-1][place], np.float64)


def _between(values: Float, reaching: NDArray[np.bool_]) -> float:
    """Place a limit halfway between images that reach it and others; beyond all where none does."""
    if not reaching.any():
        return float(values.max()) + 1.0
    low = values[~reaching].max() if not reaching.all() else values.min() - 1
    return float((values[reaching].min() + low) / 2)


def _fit(train: Own, validation: Own, foreign: Others, type_reason: str, shares: Shares) -> tuple[Familiarity, Gate]:
    typed, judged = train.typed, validation.typed
    turned = np.isin(foreign.kinds, TURNED)
    others = foreign.pick(~turned) if not turned.all() else foreign
    familiarity = fit_familiarity(
        train.summaries,
        others.summaries,
        foreign.summaries[turned] if turned.any() else None,
        None if typed is None else train.summaries[typed],
        None if typed is None else train.summaries[~typed],
    )
    scores = scores_of(familiarity, validation.summaries)
    reasons = {name: reason for name, reason in _REASONS.items() if name != "turned" or turned.any()}
    own = scores[:, : len(reasons)]
    doubtful, _ = choose_limits(own, validation.sources, shares.doubtful, shares.worst)
    refused, _ = choose_limits(own, validation.sources, shares.refused, shares.worst)
    of_type = None
    if typed is not None and judged is not None:
        (limit,), _ = choose_limits(
            scores[judged, len(reasons) :], validation.sources[judged], shares.not_assessed, shares.worst
        )
        of_type = TypeScore(not_assessed=float(limit), reason=type_reason)
    found = tuple(
        GateScore(name=name, doubtful=float(low), refused=float(max(low, high)), reason=reason)
        for (name, reason), low, high in zip(reasons.items(), doubtful, refused, strict=True)
    )
    return familiarity, Gate(scores=found, type=of_type, fitted_on="")


def _own_metrics(familiarity: Familiarity, gate: Gate, test: Own, resamples: int) -> dict[str, Measured]:
    """Measure shares of own images that are doubtful or refused, and whose label is not assessed."""
    scores = scores_of(familiarity, test.summaries)
    names, source, sizes = np.unique(test.sources, return_inverse=True, return_counts=True)
    drawn = draw(test.groups, source.astype(np.int64), resamples, 0)
    weight = 1 / (len(sizes) * sizes[source])
    found = {"own": drawn.ratio(weight * _at(scores, gate, "doubtful"), weight)}
    found["own_refused"] = drawn.ratio(weight * _at(scores, gate, "refused"), weight)
    for number, name in enumerate(names.tolist()):
        found[f"own/{name}"] = drawn.ratio(_at(scores, gate, "doubtful") & (source == number), source == number)
    if gate.type is not None and test.typed is not None:
        called = scores[:, len(gate.scores)] >= gate.type.not_assessed
        for name, rows in {"judged": test.typed, "not_judged": ~test.typed}.items():
            found[f"not_assessed/{name}"] = drawn.ratio(called & rows, rows)
    return _defined(found)


def _shares_found(
    familiarity: Familiarity, gate: Gate, foreign: Others, prefix: str, resamples: int
) -> dict[str, Measured]:
    """Measure the share of foreign images that are doubtful or refused, by kind."""
    event = _at(scores_of(familiarity, foreign.summaries), gate, "doubtful")
    kinds, kind = np.unique(foreign.kinds, return_inverse=True)
    drawn: Resamples = draw(np.arange(len(kind)), kind.astype(np.int64), resamples, 0)
    return _defined(
        {
            f"{prefix}/{name}": drawn.ratio(event & (kind == number), kind == number)
            for number, name in enumerate(kinds.tolist())
        }
    )


def _at(scores: Float, gate: Gate, what: str) -> NDArray[np.bool_]:
    """Say which images reach a limit of any score, `doubtful` or `refused`."""
    limits = np.array([getattr(score, what) for score in gate.scores])
    return np.asarray((scores[:, : len(limits)] >= limits).any(axis=1), np.bool_)


def _defined(found: Mapping[str, Measured | None]) -> dict[str, Measured]:
    return {name: value for name, value in found.items() if value is not None}
