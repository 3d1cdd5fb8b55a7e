"""What the report of a reader study says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from training.study.analysis import Analysis
from training.study.document import MISSING, Block, Document, Heading, Picture, Table, Text, interval, p_value, shown
from training.study.expected import Recovered
from training.study.mixed import MixedModel
from training.study.mrmc import Pooled
from training.study.pictures import (
    draw_accuracy,
    draw_differences,
    draw_ratings,
    draw_recovery,
    draw_reliance,
    draw_times,
)

NOTICE = "Research use only: not a medical device."


def report(analysis: Analysis, recovered: Sequence[Recovered] = ()) -> Document:
    """The report.

    Args:
        analysis: of the study.
        recovered: of a simulated study, what was expected and found.
    """
    sections = (_study, _pooled, _by_reader, _paired, _mixed, _likert, _reliance, _times, _agreement)
    blocks = [block for section in sections for block in section(analysis)]
    return Document(f"Reader study: {analysis.study.name}", NOTICE, (*blocks, *_recovered(recovered)))


def _study(a: Analysis) -> Iterator[Block]:
    study = a.study
    washout = f", washout {study.washout_days:g} days" if study.design == "crossover" else ""
    yield Text(
        f"{a.readers} readers, {a.cases} cases, {a.diseased} of them with disease ({', '.join(study.positive)}); "
        f"design {study.design}{washout}. Model {study.model.id} {study.model.version}, right in {a.model_correct} of "
        f"{a.cases} cases; explanation {study.method}. A heat-map is evidence, not a lesion outline."
    )
    if a.left_out:
        yield Text(f"{a.left_out} cases are left out of everything, because not every reader has read them.")
    yield Text(
        "Values come with 95 % intervals. No p-value is corrected for the number of tests: the end point that was "
        "named before the study is the one to judge; the others describe."
    )


def _pooled(a: Analysis) -> Iterator[Block]:
    yield Heading("With and without the explanation")
    yield Text(
        "For other readers and other cases than these: Obuchowski and Rockette's method with Hillis' degrees of "
        "freedom, which allows for readings of one reader, and of one case, being alike. Seconds are geometric means, "
        "and their difference is a ratio. AUROC ranks cases by diagnosis and confidence together."
    )
    head = ("", "without", "with", "with less without", "t", "df", "p", "cases")
    yield Table(head, tuple(_pooled_row(name, value) for name, value in a.pooled.items()))
    if "accuracy" in a.pooled:
        both = a.pooled["accuracy"]
        text = f"Share correct without {interval(both.without)}, with {interval(both.with_)}."
        yield Picture("accuracy", text, partial(draw_accuracy, analysis=a), 0.6 + 0.4 * (a.readers + 2))
    yield Picture(
        "differences", "Differences between the arms, as in the table.", partial(draw_differences, analysis=a)
    )


def _pooled_row(name: str, value: Pooled) -> tuple[str, ...]:
    digits = 1 if name in ("confidence", "seconds") else 3
    gap = value.difference
    change = ("ratio " if name == "seconds" else "") + interval(gap, 3 if name == "seconds" else digits)
    t, freedom = (MISSING if number is None else f"{number:.2f}" for number in (gap.t, gap.freedom))
    arms = interval(value.without, digits), interval(value.with_, digits)
    return (shown(name), *arms, change, t, freedom, p_value(gap.p), str(value.cases))


def _by_reader(a: Analysis) -> Iterator[Block]:
    yield Heading("Readers")
    yield Text(
        "Intervals are of cases only (Wilson; the change: Bonett and Price). McNemar's test counts the cases that were "
        "right in one arm only; mid-p is the less conservative of its two p-values."
    )
    rows = [
        (result.reader, arm, *(interval(v, 2) for v in (found.accuracy, found.sensitivity, found.specificity)))
        for result in a.by_reader
        for arm, found in result.arms.items()
    ]
    yield Table(("reader", "arm", "accuracy", "sensitivity", "specificity"), tuple(rows))
    changes = [
        (
            result.reader,
            interval(result.difference, 2),
            str(result.mcnemar.only_first),
            str(result.mcnemar.only_second),
            p_value(result.mcnemar.p),
            p_value(result.mcnemar.mid_p),
        )
        for result in a.by_reader
        if result.mcnemar is not None
    ]
    if changes:
        yield Table(
            ("reader", "change in accuracy", "right only with", "only without", "exact p", "mid-p"), tuple(changes)
        )


def _paired(a: Analysis) -> Iterator[Block]:
    yield Heading("Paired t-tests")
    cases = "over the cases' means"
    over = f"over the readers' means and {cases}" if a.study.design == "crossover" else cases
    yield Text(
        f"Student's paired t-test, with less without, {over}; dz is Cohen's effect size for pairs; Wilcoxon's "
        "signed-rank test stands beside it. Over readers, the cases count as fixed; over cases, the readers do: the "
        "pooled tests above allow for both. Shapiro and Wilk's p is small where the differences are not normal."
    )
    head = ("outcome", "over", "difference", "t", "df", "p", "dz", "Wilcoxon p", "normal p")
    yield Table(
        head,
        tuple(
            (
                row.outcome,
                row.over,
                f"{row.test.difference:.3f} ({row.test.low:.3f} to {row.test.high:.3f})",
                f"{row.test.t:.2f}",
                str(row.test.freedom),
                p_value(row.test.p),
                f"{row.test.effect:.2f} ({row.test.effect_low:.2f} to {row.test.effect_high:.2f})",
                p_value(row.test.wilcoxon_p),
                p_value(row.test.normal_p),
            )
            for row in a.paired
        ),
    )


def _mixed(a: Analysis) -> Iterator[Block]:
    yield Heading("Mixed models, period and carry-over")
    yield Text(
        "Readers and cases as crossed random effects. Right or wrong: logistic, by variational Bayes (effects are log "
        "odds, intervals are credible ones). The others: linear, by restricted maximum likelihood. Both take few "
        "readers for more than they are; the pooled tests above do not. In a crossover, period is the second against "
        "the first; carry-over is the difference between cases first seen without and cases first seen with the "
        "explanation. It has little power, and no analysis should be chosen by it (Freeman 1989)."
    )
    rows = [row for model in a.mixed for row in _model_rows(model)]
    yield Table(("outcome", "effect", "value", "p", "deviations of random effects"), tuple(rows))
    for model in a.mixed:
        if model.warning:
            yield Text(f"statsmodels, {model.outcome}: {model.warning}")


def _model_rows(model: MixedModel) -> Iterator[tuple[str, ...]]:
    deviations = ", ".join(f"{name} {value:.2f}" for name, value in model.deviations.items())
    for number, (name, effect) in enumerate(model.effects.items()):
        value = f"{effect.value:.3f} ({effect.low:.3f} to {effect.high:.3f})"
        yield (
            model.outcome,
            name.replace("_", "-"),
            value,
            p_value(effect.p),
            "" if number else deviations,
        )


def _likert(a: Analysis) -> Iterator[Block]:
    yield Heading("Ratings of the explanation")
    yield Text(
        "Ratings are ordinal: the step from 1 to 2 need not be that from 4 to 5, and whether means and t-tests of them "
        "mean anything is contested (against: Jamieson, Med. Educ. 38 (2004) 1217; for: Norman, Adv. Health Sci. Educ. "
        "15 (2010) 625). Counts and medians need no such assumption, and Wilcoxon's test less of it. The tests compare "
        "the readers' means with the neutral 3."
    )
    head = ("item", "1", "2", "3", "4", "5", "median", "4 or 5", "mean", "t-test p", "Wilcoxon p")
    rows = [
        (
            item.name,
            *map(str, item.counts),
            f"{item.median:g}",
            f"{item.agreeing:.0%}",
            interval(item.mean, 2),
            p_value(item.neutral and item.neutral.p),
            p_value(item.neutral and item.neutral.wilcoxon_p),
        )
        for item in a.likert
    ]
    if rows:
        yield Table(head, tuple(rows))
        yield Picture("ratings", "Shares of the ratings, as in the table.", partial(draw_ratings, analysis=a), 2.8)


def _reliance(a: Analysis) -> Iterator[Block]:
    yield Heading("Reliance on the model")
    yield Text(
        "Over-reliance: among the cases in which the model is wrong, how often readers gave its class. Without the "
        "explanation they cannot have followed it, so that arm shows how often they err the same way. Under-reliance: "
        "among those in which it is right, how often they gave another class."
    )
    if "over_reliance" not in a.pooled:
        yield Text("The model is wrong in too few of the cases to judge over-reliance.")
    yield Picture(
        "reliance", "Over- and under-reliance, as in the first table.", partial(draw_reliance, analysis=a), 2.2
    )


def _times(a: Analysis) -> Iterator[Block]:
    yield Heading("Time per case")
    if "seconds" in a.pooled:
        found = a.pooled["seconds"]
        yield Text(
            f"Geometric means: {interval(found.without, 1)} s without, {interval(found.with_, 1)} s with; "
            f"ratio {interval(found.difference)}."
        )
    yield Picture("times", "Each reader's median time.", partial(draw_times, analysis=a), 0.6 + 0.35 * (a.readers + 1))


def _agreement(a: Analysis) -> Iterator[Block]:
    yield Heading("Agreement between readers")
    yield Text(
        "Fleiss' kappa; Krippendorff's alpha for the level named; ICC(2,1), two-way random, absolute agreement, one "
        f"reader. Intervals of kappa and alpha are percentiles of {a.resamples} resamples of the cases."
    )
    rows = [
        (
            name,
            "" if found.fleiss_kappa is None else interval(found.fleiss_kappa, 2),
            interval(found.krippendorff_alpha, 2),
            found.level,
            "" if found.icc is None else interval(found.icc, 2),
        )
        for name, found in a.agreement.items()
    ]
    yield Table(("question", "kappa", "alpha", "level", "ICC(2,1)"), tuple(rows))


def _recovered(rows: Sequence[Recovered]) -> Iterator[Block]:
    if not rows:
        return
    yield Heading("Simulated study: expected and found")
    inside = sum(row.inside for row in rows)
    yield Text(
        f"This study never took place. Its parameters are known; {inside} of {len(rows)} figures that follow from them "
        "lie within their intervals. Of 95 % intervals one in twenty misses, even where all is well."
    )
    cells = [
        (r.parameter, shown(r.figure), f"{r.expected:.3f}", interval(r.found), "yes" if r.inside else "no")
        for r in rows
    ]
    yield Table(("parameter", "figure", "expected", "found", "inside"), tuple(cells))
    text = "Expected values within their intervals, as in the table."
    yield Picture("recovery", text, partial(draw_recovery, rows=rows), 0.6 + 0.24 * len(rows))
