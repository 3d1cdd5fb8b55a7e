from __future__ import annotations

import numpy as np
import pytest

from training.study.mrmc import pooled
from training.study.power import Spread, needed_cases, power, spread_of_pilot, spread_of_shares
from training.study.readings import arrange
from training.study.simulate import Parameters, simulate


@pytest.mark.parametrize(("readers", "cases"), [(5, 40), (10, 60)])
def test_power_is_how_often_the_test_finds_the_change(readers, cases):
    """Normal readings with exactly the spread that the formula is told, judged by the test that the analysis makes."""
    spread, change = Spread(reader=0.03**2, case=0.04, rest=0.2), 0.12
    random = np.random.default_rng(0)
    everyone = (np.arange(readers), np.arange(readers))
    found = 0
    for _ in range(1000):
        gap = change + spread.reader**0.5 * random.normal(size=(readers, 1))
        gap = (
            gap + spread.case**0.5 * random.normal(size=cases) + spread.rest**0.5 * random.normal(size=(readers, cases))
        )
        found += pooled(np.stack([np.zeros_like(gap), gap]), everyone).difference.p < 0.05
    assert found / 1000 == pytest.approx(power(change, spread, readers, cases), abs=0.05)


def test_no_change_is_found_as_often_as_the_level_says():
    assert power(0.0, Spread(0.001, 0.02, 0.2), 6, 60) == 0.05
    assert power(1e-6, Spread(0.001, 0.02, 0.2), 6, 60) == pytest.approx(0.05, abs=1e-6)


def test_power_grows_with_everything_and_ends_at_one():
    spread = spread_of_shares(0.75, 0.82, correlation=0.4, reader_sd=0.03, case_share=0.15)
    grid = [[power(0.07, spread, readers, cases) for cases in range(10, 4000, 190)] for readers in (4, 6, 8, 12, 20)]
    assert (np.diff(grid, axis=0) > -1e-9).all()
    assert (np.diff(grid, axis=1) > -1e-9).all()
    assert grid[-1][-1] == pytest.approx(1, abs=1e-3)


def test_the_fewest_cases():
    spread = spread_of_shares(0.75, 0.82, correlation=0.4, reader_sd=0.03, case_share=0.15)
    fewest = needed_cases(0.07, spread, 8, 0.8)
    assert power(0.07, spread, 8, fewest) >= 0.8 > power(0.07, spread, 8, fewest - 1)
    assert needed_cases(0.001, spread, 4, 0.8) is None


def test_shares_have_the_variance_of_their_difference():
    spread = spread_of_shares(0.7, 0.8, correlation=0.5, reader_sd=0.0, case_share=0.2)
    # right in both: 0.5 sqrt(0.21 0.16) + 0.56; the change is 1 or -1 where only one is right
    both = 0.5 * (0.21 * 0.16) ** 0.5 + 0.56
    assert spread.case + spread.rest == pytest.approx(0.7 + 0.8 - 2 * both - 0.1**2)
    assert spread.case == pytest.approx(0.2 * (spread.case + spread.rest))
    with pytest.raises(ValueError, match="cannot correlate"):
        spread_of_shares(0.5, 0.99, correlation=0.9, reader_sd=0.0, case_share=0.2)


def test_a_pilot_gives_change_and_spread():
    parameters = Parameters(readers=40, cases=400, benefit_sd=0.6)
    readings = arrange(*simulate(parameters, 0))
    change, spread = spread_of_pilot(readings)
    changes = readings.correct[1] - readings.correct[0]
    assert change == pytest.approx(changes.mean())
    assert spread.reader + spread.case + spread.rest == pytest.approx(changes.var(), rel=0.05)
    with pytest.raises(ValueError, match="no crossover"):
        spread_of_pilot(arrange(*simulate(Parameters(design="parallel"), 0)))
