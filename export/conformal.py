"""Limits of probabilities at which answers are wrong at a stated rate at most: split conformal prediction, by class.

A label belongs to the prediction set from some probability on. It is chosen on images that nothing was trained on, for
each class by itself (Mondrian; Vovk et al., "Algorithmic Learning in a Random World", 2005, chapter 4.5), so that at
most the stated share of new images of the class falls below it.

Images of one patient are no independent evidence, so groups count and not images. Each of the `K` groups has the weight
1 / (K + 1), divided among its images of the class, and the new group has the same, at the worst place:

    limit = max { t : sum over groups of (share of the group's images below t) + 1 <= error rate x (K + 1) }

With one image a group this is the usual finite-sample correction. It holds for an image of a new group that is
exchangeable with the groups seen: Lee, Barber & Willett, "Distribution-free inference with hierarchical data",
arXiv:2306.06342 (2023), section 3, after Dunn, Wasserman & Ramdas, "Distribution-free prediction sets for two-layer
hierarchical models", J. Am. Stat. Assoc. 118 (2023) 2491.

Groups of different sources are not exchangeable, and the next source is one more. So a limit is found for every source
that has enough groups to have one, and for all of them together; the one that excludes least is taken. Then the rate
holds for each of these sources, at the price of more images that are not decided.

Where a model errs less often than the rate allows, sets may be empty. The most probable label is added to them, and
a gap between the limits of a finding is closed: more is answered, and the rate still holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from export.errors import ExportError
from export.provenance import estimates
from service.manifest import Bounds, Conformal, Estimate
from training.bootstrap import Array, draw
from training.bootstrap import Estimate as Measured

_ROUNDING = 1e-9  # of sums of shares


class TooFewCases(ExportError):
    """There are too few groups of a class for the error rate; the message says how many are needed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Images with known labels, and what a model says of them.

    Attributes:
        probabilities: calibrated, float64 `[N, K]`.
        labels: int64 `[N]`.
        groups: patient or block of each image, `[N]`.
        sources: where each comes from, `[N]`.
    """

    probabilities: Array
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    sources: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, rows: NDArray[np.bool_]) -> Answered:
        """Take some of the images."""
        return Answered(self.probabilities[rows], self.labels[rows], self.groups[rows], self.sources[rows])


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that were fitted: of labels, and of findings, by name."""

    labels: dict[str, float]
    findings: dict[str, Bounds]


def fit_conformal(
    known: Answered,
    names: Sequence[str],
    findings: Mapping[str, Sequence[str]],
    *,
    error_rate: float,
    fitted_on: str,
    test: Answered | None = None,
    resamples: int = 2000,
    seed: int = 0,
    command: str = "",
    date: str = "",
) -> Conformal:
    """Fit limits on images that nothing was trained on, and measure them on others.

    Args:
        known: the images to fit on.
        names: of the labels, in the order of the probabilities.
        findings: the labels of each finding, by name.
        error_rate: share of the images of each class that may be answered wrongly, 0..1.
        fitted_on: `known`, in words.
        test: images that no choice looked at; None: nothing is measured.
        resamples: how many bootstrap resamples the intervals come from.
        seed: of these.
        command: that repeats it.
        date: of that, ISO 8601.

    Raises:
        TooFewCases: a class has too few groups for the error rate.
    """
    limits = fit_limits(known, names, findings, error_rate)
    return Conformal(
        error_rate=error_rate,
        labels=limits.labels,
        findings=limits.findings,
        fitted_on=fitted_on,
        images=len(known),
        groups=len(np.unique(known.groups)),
        metrics={}
        if test is None
        else rates(test, judge(test, names, findings, limits), resamples=resamples, seed=seed),
        command=command,
        date=date,
    )


def fit_limits(
    known: Answered, names: Sequence[str], findings: Mapping[str, Sequence[str]], error_rate: float
) -> Limits:
    """Fit the limits of all labels and findings; arguments and errors as of `fit_conformal`."""
    labels: dict[str, float] = {}
    for number, name in enumerate(names):
        of_class = known.pick(known.labels == number)
        labels[name] = _lowest(of_class, of_class.probabilities[:, number], error_rate, name)
    return Limits(labels, fit_findings(known, names, findings, error_rate))


def fit_findings(
    known: Answered, names: Sequence[str], findings: Mapping[str, Sequence[str]], error_rate: float
) -> dict[str, Bounds]:
    """Fit the limits of the findings alone; arguments and errors as of `fit_conformal`."""
    found: dict[str, Bounds] = {}
    for finding, parts in findings.items():
        present, score = finding_of(known, names, parts)
        with_it, without = known.pick(present), known.pick(~present)
        found[finding] = _closed(
            absent_to=-_lowest(without, -score[~present], error_rate, f"{finding}: absent"),
            present_from=_lowest(with_it, score[present], error_rate, f"{finding}: present"),
        )
    return found


def _closed(absent_to: float, present_from: float) -> Bounds:
    """Make bounds without a gap: where nothing would be possible between the limits, they meet midway in log-odds.

    An answer that is added to an empty set adds no error.
    """
    if absent_to < present_from:
        low, high = (np.clip(value, _ROUNDING, 1 - _ROUNDING) for value in (absent_to, present_from))
        present_from = float(expit((logit(low) + logit(high)) / 2))
        absent_to = float(np.nextafter(present_from, 0))
    return Bounds(absent_to=absent_to, present_from=present_from)


def finding_of(images: Answered, names: Sequence[str], parts: Sequence[str]) -> tuple[NDArray[np.bool_], Array]:
    """Say where a finding with some labels is present, bool `[N]`, and its probability, `[N]`."""
    chosen = [names.index(part) for part in parts]
    return np.isin(images.labels, chosen), np.minimum(images.probabilities[:, chosen].sum(axis=1), 1.0)


def fewest_groups(error_rate: float) -> int:
    """Say from how many groups on a limit exists."""
    return ceil(1 / error_rate - 1 - _ROUNDING)


def lowest_limit(scores: Array, groups: NDArray[np.generic], error_rate: float) -> float:
    """Find the largest limit below which scores of a new group lie with at most the error rate.

    Args:
        scores: of images of one class, `[N]`.
        groups: of each, `[N]`.
        error_rate: 0..1.

    Raises:
        TooFewCases: no limit exists for so few groups.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < fewest_groups(error_rate):
        raise TooFewCases(
            f"{len(sizes)} patients or blocks of images; an error rate of {error_rate:g} needs "
            f"{fewest_groups(error_rate)} at least"
        )
    values, place = np.unique(scores, return_inverse=True)
    below = np.cumsum(np.bincount(place, weights=1 / sizes[group], minlength=len(values)))
    below = np.concatenate([[0.0], below[:-1]])
    allowed = error_rate * (len(sizes) + 1) - 1
    return float(values[below <= allowed + _ROUNDING][-1])


def _lowest(images: Answered, scores: Array, error_rate: float, what: str) -> float:
    """Find the limit that excludes least, of all sources together and of each that has enough groups."""
    try:
        limits = [lowest_limit(scores, images.groups, error_rate)]
    except TooFewCases as error:
        raise TooFewCases(f"{what}: {error}") from None
    for source in np.unique(images.sources):
        rows = images.sources == source
        if len(np.unique(images.groups[rows])) >= fewest_groups(error_rate):
            limits.append(lowest_limit(scores[rows], images.groups[rows], error_rate))
    return min(limits)


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened to N images: whether it did, bool `[N]`, and which images it could happen to, bool `[N]`."""

    event: NDArray[np.bool_]
    among: NDArray[np.bool_]


def judge(
    images: Answered, names: Sequence[str], findings: Mapping[str, Sequence[str]], limits: Limits
) -> dict[str, Happened]:
    """Say of each image whether its answer is wrong, by class, and whether it is not decided.

    An answer is wrong where the prediction set lacks the truth, and not decided where it holds several labels. The most
    probable label is always in it.

    Args:
        images: that were answered.
        names: as of `fit_conformal`, and so are `findings`.
        findings: see there.
        limits: that are applied; without labels only the findings are judged.
    """
    everything = np.ones(len(images), np.bool_)
    judged: dict[str, Happened] = {}
    if limits.labels:
        inside = images.probabilities >= np.array([limits.labels[name] for name in names])
        inside[np.arange(len(images)), images.probabilities.argmax(axis=1)] = True
        missing = ~inside[np.arange(len(images)), images.labels]
        for number, name in enumerate(names):
            judged[f"error/{name}"] = Happened(missing, images.labels == number)
        judged["not_decided"] = Happened(inside.sum(axis=1) != 1, everything)
    for finding, bounds in limits.findings.items():
        present, score = finding_of(images, names, findings[finding])
        may_be, may_not = score >= bounds.present_from, score <= bounds.absent_to
        judged[f"{finding}/error/present"] = Happened(~may_be, present)
        judged[f"{finding}/error/absent"] = Happened(~may_not, ~present)
        judged[f"{finding}/not_decided"] = Happened(may_be == may_not, everything)
    return judged


def rates(
    images: Answered, judged: Mapping[str, Happened], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Give the shares of what happened, with intervals by groups: of all sources, and of each where there are several.

    Args:
        images: that were judged.
        judged: of `judge`.
        resamples: how many bootstrap resamples the intervals come from.
        seed: of these.
    """
    drawn = draw(images.groups, images.labels, resamples, seed)
    sources = np.unique(images.sources).tolist()
    found: dict[str, Measured] = {}
    for name, one in judged.items():
        places = {name: one.among}
        if len(sources) > 1:
            places |= {f"{name}/{source}": one.among & (images.sources == source) for source in sources}
        for place, among in places.items():
            share = drawn.ratio(one.event & among, among)
            if share is not None:
                found[place] = share
    return estimates(found)
