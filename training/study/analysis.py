"""Everything that a reader study says, as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from service.validation import Strict
from training.bootstrap import Estimate
from training.statistics import NoTest, PairedComparison, compare_paired
from training.study.agreement import Agreement, agreement
from training.study.individual import ReaderResult, individual_results
from training.study.mixed import MixedModel, linear, logistic
from training.study.mrmc import SHARE, Difference, Pooled, area_under_curve, mean_of_cases, pooled, single
from training.study.readings import Readings, Values
from training.study.records import Study

NEUTRAL, AGREE = 3.0, 4


class PairedTest(Strict):
    """Student's paired t-test and Wilcoxon's, with less without, over the means of `over`."""

    outcome: str
    over: str
    test: PairedComparison


class Item(Strict):
    """A Likert item.

    `counts` of 1 to 5; `mean` by Obuchowski & Rockette; `agreeing` is the share of 4 and 5;
    `neutral` compares the readers' means with 3, None where the test cannot be made.
    """

    name: str
    counts: tuple[int, int, int, int, int]
    by_reader: dict[str, tuple[int, int, int, int, int]]
    mean: Estimate | None
    median: float
    agreeing: float
    neutral: PairedComparison | None


class Analysis(Strict):
    """Results of a study.

    `pooled` maps `accuracy`, `sensitivity`, `specificity`, `auroc` (of the diagnosis with its confidence),
    `confidence`, `seconds` (geometric means; the difference is their ratio), `over_reliance` (share of readings with
    the model's class among cases in which the model is wrong) and `under_reliance` (share with another class where it
    is right) to both arms and their difference. Names are left out where the cases are too few.
    """

    study: Study
    readers: int
    cases: int
    left_out: int
    diseased: int
    model_correct: int
    pooled: dict[str, Pooled]
    by_reader: tuple[ReaderResult, ...]
    paired: tuple[PairedTest, ...]
    mixed: tuple[MixedModel, ...]
    likert: tuple[Item, ...]
    agreement: dict[str, Agreement]
    resamples: int
    seed: int


def analyse(readings: Readings, *, resamples: int = 1000, seed: int = 0) -> Analysis:
    """Analyse a study.

    Args:
        readings: of the study.
        resamples: of the cases, for the intervals of kappa and alpha.
        seed: of the resamples.
    """
    return Analysis(
        study=readings.study,
        readers=len(readings.readers),
        cases=len(readings.cases),
        left_out=readings.left_out,
        diseased=int(readings.diseased.sum()),
        model_correct=int((~readings.model_wrong).sum()),
        pooled=pooled_results(readings),
        by_reader=individual_results(readings),
        paired=tuple(_paired(readings)),
        mixed=tuple(_mixed(readings)),
        likert=tuple(_items(readings)),
        agreement=dict(_agreement(readings, resamples, seed)),
        resamples=resamples,
        seed=seed,
    )


def pooled_results(readings: Readings) -> dict[str, Pooled]:
    """The part `pooled` of an analysis alone, which is quick."""
    diseased, wrong = readings.diseased, readings.model_wrong
    of_readers = readings.readers_of
    found = {
        "accuracy": pooled(readings.correct, of_readers, mean_of_cases, SHARE),
        "sensitivity": pooled(readings.called[..., diseased], of_readers, mean_of_cases, SHARE),
        "specificity": pooled(1 - readings.called[..., ~diseased], of_readers, mean_of_cases, SHARE),
        "auroc": None
        if min(diseased.sum(), (~diseased).sum()) < 2
        else pooled(readings.suspicion, of_readers, area_under_curve(diseased), SHARE),
        "confidence": pooled(readings.confidence, of_readers, mean_of_cases, (0.0, 100.0)),
        "seconds": _ratio(pooled(np.log(readings.seconds), of_readers)),
        "over_reliance": pooled(readings.followed[..., wrong], of_readers, mean_of_cases, SHARE),
        "under_reliance": pooled(1 - readings.followed[..., ~wrong], of_readers, mean_of_cases, SHARE),
    }
    return {name: value for name, value in found.items() if value is not None}


def rating_means(readings: Readings) -> dict[str, Estimate | None]:
    """The means of the Likert items, by name."""
    raters = readings.readers_of[1]
    return {
        name: mean_rating(ratings[raters]) for name, ratings in zip(readings.study.items, readings.ratings, strict=True)
    }


def mean_rating(ratings: Values) -> Estimate | None:
    """The mean of an item's ratings `[R, C]` over readers and cases, from the cases that all of them rated."""
    full = ratings[:, np.isfinite(ratings).all(axis=0)]
    return None if full.shape[1] < 3 else single(*mean_of_cases(full), full.shape[1], (1.0, 5.0))


def _ratio(logarithms: Pooled | None) -> Pooled | None:
    if logarithms is None:
        return None
    gap = logarithms.difference
    return Pooled(
        without=_exponential(logarithms.without),
        with_=_exponential(logarithms.with_),
        difference=Difference(
            value=float(np.exp(gap.value)),
            low=float(np.exp(gap.low)),
            high=float(np.exp(gap.high)),
            t=gap.t,
            freedom=gap.freedom,
            p=gap.p,
        ),
        cases=logarithms.cases,
    )


def _exponential(value: Estimate) -> Estimate:
    low, middle, high = np.exp([value.low, value.value, value.high]).tolist()
    return Estimate(value=middle, low=low, high=high)


def _paired(readings: Readings) -> Iterator[PairedTest]:
    """Over readers in a crossover; over cases always, for the cases of both arms are the same."""
    outcomes = {
        "accuracy": readings.correct,
        "confidence": readings.confidence,
        "log seconds": np.log(readings.seconds),
    }
    for outcome, values in outcomes.items():
        without, with_ = (values[arm][chosen] for arm, chosen in enumerate(readings.readers_of))
        for over, axis in (("readers", 1), ("cases", 0)):
            if axis == 0 or readings.crossover:
                test = _compare(with_.mean(axis=axis), without.mean(axis=axis))
                if test is not None:
                    yield PairedTest(outcome=outcome, over=over, test=test)


def _compare(a: NDArray[np.floating], b: NDArray[np.floating]) -> PairedComparison | None:
    try:
        return compare_paired(a, b)
    except NoTest:
        return None


def _mixed(readings: Readings) -> Iterator[MixedModel]:
    fits: tuple[tuple[Callable[..., MixedModel | None], str, Values], ...] = (
        (logistic, "correct", readings.correct),
        (linear, "confidence", readings.confidence),
        (linear, "log seconds", np.log(readings.seconds)),
    )
    for fit, outcome, values in fits:
        model = fit(readings, outcome, values)
        if model is not None:
            yield model


def _items(readings: Readings) -> Iterator[Item]:
    raters = readings.readers_of[1]
    for name, ratings in zip(readings.study.items, readings.ratings, strict=True):
        given = ratings[np.isfinite(ratings)]
        if len(given):
            means = np.array([row[np.isfinite(row)].mean() for row in ratings[raters] if np.isfinite(row).any()])
            yield Item(
                name=name,
                counts=_counts(ratings),
                by_reader={readings.readers[reader]: _counts(ratings[reader]) for reader in raters},
                mean=mean_rating(ratings[raters]),
                median=float(np.median(given)),
                agreeing=float((given >= AGREE).mean()),
                neutral=_compare(means, np.full(len(means), NEUTRAL)),
            )


def _counts(ratings: Values) -> tuple[int, int, int, int, int]:
    one, two, three, four, five = (int((ratings == rating).sum()) for rating in range(1, 6))
    return one, two, three, four, five


def _agreement(readings: Readings, resamples: int, seed: int) -> Iterator[tuple[str, Agreement]]:
    for arm, place in (("without", 0), ("with", 1)):
        chosen = readings.readers_of[place]
        diagnosis, confidence = readings.diagnosis[place][chosen], readings.confidence[place][chosen]
        yield f"diagnosis, {arm}", agreement(diagnosis, "nominal", resamples=resamples, seed=seed)
        yield f"confidence, {arm}", agreement(confidence, "interval", resamples=resamples, seed=seed)
    raters = readings.readers_of[1]
    for item, values in zip(readings.study.items, readings.ratings, strict=True):
        yield item, agreement(values[raters], "ordinal", resamples=resamples, seed=seed)
