from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from training.statistics import compare_paired
from training.study.analysis import Analysis, analyse
from training.study.individual import individual_results
from training.study.mixed import linear, logistic
from training.study.readings import Readings, arrange
from training.study.simulate import Parameters, simulate


@pytest.fixture(scope="module")
def readings() -> Readings:
    return arrange(*simulate(Parameters(readers=5, cases=30), 3))


@pytest.fixture(scope="module")
def analysis(readings: Readings) -> Analysis:
    return analyse(readings, resamples=50)


def test_shares_are_counted_as_they_are_meant(readings: Readings, analysis: Analysis) -> None:
    diseased, wrong = readings.truth < 3, readings.model != readings.truth
    arms = {"without": 0, "with_": 1}
    expected = {
        "accuracy": lambda d: (d == readings.truth).mean(),
        "sensitivity": lambda d: (d[:, diseased] < 3).mean(),
        "specificity": lambda d: (d[:, ~diseased] == 3).mean(),
        "over_reliance": lambda d: (d == readings.model)[:, wrong].mean(),
        "under_reliance": lambda d: (d != readings.model)[:, ~wrong].mean(),
    }
    for name, share in expected.items():
        for arm, place in arms.items():
            assert getattr(analysis.pooled[name], arm).value == pytest.approx(share(readings.diagnosis[place])), name
    assert analysis.pooled["over_reliance"].cases == wrong.sum() == analysis.cases - analysis.model_correct
    seconds = analysis.pooled["seconds"]
    assert seconds.without.value == pytest.approx(stats.gmean(readings.seconds[0].ravel()))
    assert seconds.difference.value == pytest.approx(seconds.with_.value / seconds.without.value)
    assert seconds.difference.low < seconds.difference.value < seconds.difference.high < 1.1


def test_readers_are_counted_one_by_one(readings: Readings, analysis: Analysis) -> None:
    for number, result in enumerate(analysis.by_reader):
        right = readings.correct[:, number]
        assert result.arms["with"].accuracy.value == pytest.approx(right[1].mean())
        assert result.mcnemar.only_first == ((right[1] == 1) & (right[0] == 0)).sum()
        assert result.difference.value == pytest.approx(right[1].mean() - right[0].mean())
        assert result.difference.low < result.difference.value < result.difference.high
        assert result.arms["without"].median_seconds == np.median(readings.seconds[0, number])


def test_bonett_and_price_hold_the_change_as_often_as_they_say():
    held = []
    for seed in range(150):
        alone = Parameters(readers=2, cases=40, reader_sd=0, case_sd=0, benefit_sd=0, learning=0, reliance=0)
        found = individual_results(arrange(*simulate(alone, seed)))
        truth = 1 / (1 + np.exp(-1.3)) - 1 / (1 + np.exp(-0.8))
        held += [result.difference.low <= truth <= result.difference.high for result in found]
    assert 0.92 <= np.mean(held) <= 0.99


def test_paired_tests_are_over_readers_and_over_cases(readings: Readings, analysis: Analysis) -> None:
    assert {(row.outcome, row.over) for row in analysis.paired} == {
        (outcome, over) for outcome in ("accuracy", "confidence", "log seconds") for over in ("readers", "cases")
    }
    for row in analysis.paired:
        if (row.outcome, row.over) == ("accuracy", "cases"):
            means = readings.correct.mean(axis=1)
            assert row.test == compare_paired(means[1], means[0])
            assert row.test.freedom == 29


def test_in_a_balanced_crossover_the_linear_model_has_the_plain_difference(
    readings: Readings, analysis: Analysis
) -> None:
    models = {model.outcome: model for model in analysis.mixed}
    assert set(models) == {"correct", "confidence", "log seconds"}
    confidence = models["confidence"]
    assert confidence.effects["explanation"].value == pytest.approx(analysis.pooled["confidence"].difference.value)
    assert set(confidence.effects) == {"explanation", "period", "carry_over"}
    assert set(models["correct"].deviations) == {"reader", "case", "explanation by reader"}


def test_the_logistic_model_finds_the_effect_period_and_spread_it_is_made_for():
    """Without reliance the generating model is a logistic one: benefit 0.9, learning 0.4, deviations 0.4 and 0.8."""
    parameters = Parameters(
        readers=8, cases=80, benefit=0.9, learning=0.4, reader_sd=0.4, case_sd=0.8, benefit_sd=0.1, reliance=0
    )
    readings = arrange(*simulate(parameters, 0))
    model = logistic(readings, "correct", readings.correct)
    for name, truth in (("explanation", 0.9), ("period", 0.4), ("carry_over", 0.0)):
        effect = model.effects[name]
        assert effect.low <= truth <= effect.high, name
        assert 0.1 < effect.high - effect.low < 1.2
    assert model.deviations["case"] == pytest.approx(0.8, abs=0.25)


def test_a_carry_over_is_seen():
    """Cases first seen with the explanation are answered more surely ever after."""
    readings = arrange(*simulate(Parameters(readers=4, cases=30), 0))
    first_with = np.broadcast_to(readings.period[1] == 1, readings.confidence.shape)
    shifted = replace(readings, confidence=readings.confidence + 20 * first_with)
    effect = linear(shifted, "confidence", shifted.confidence).effects["carry_over"]
    assert effect.high < 0
    assert effect.low <= -20 <= effect.high


def test_ratings_are_counted_and_compared_with_neutral(readings: Readings, analysis: Analysis) -> None:
    for number, item in enumerate(analysis.likert):
        ratings = readings.ratings[number]
        assert sum(item.counts) == 150
        assert item.counts[3] == (ratings == 4).sum()
        assert item.mean.value == pytest.approx(ratings.mean())
        assert item.agreeing == pytest.approx((ratings >= 4).mean())
        assert item.neutral.t == pytest.approx(stats.ttest_1samp(ratings.mean(axis=1), 3).statistic)
    assert set(analysis.agreement) >= {"diagnosis, without", "diagnosis, with", "trust"}


def test_an_analysis_survives_its_json(analysis: Analysis) -> None:
    assert Analysis.model_validate_json(analysis.model_dump_json()) == analysis
    assert "NaN" not in json.dumps(json.loads(analysis.model_dump_json()))


def test_a_parallel_study_has_no_tests_over_paired_readers() -> None:
    found = analyse(arrange(*simulate(Parameters(readers=5, cases=20, design="parallel"), 0)), resamples=20)
    assert {row.over for row in found.paired} == {"cases"}
    assert all(len(result.arms) == 1 and result.mcnemar is None for result in found.by_reader)
    assert all(set(model.effects) == {"explanation"} for model in found.mixed)


def test_a_study_of_healthy_cases_only_has_neither_sensitivity_nor_auroc() -> None:
    study, cases, readings = simulate(Parameters(readers=3, cases=24), 0)
    healthy = [case for case in cases if case.truth == "no_tumor"]
    names = {case.case for case in healthy}
    found = analyse(arrange(study, healthy, [r for r in readings if r.case in names]), resamples=20)
    assert {"sensitivity", "auroc"}.isdisjoint(found.pooled)
    assert found.by_reader[0].arms["with"].sensitivity is None
    assert found.pooled["specificity"].cases == 12
