from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.study.mrmc import area_under_curve, contrast, difference, mean_of_cases, pooled, single

# Van Dyke et al. (1993), spin-echo against cine MRI for aortic dissection, 5 readers, 114 cases: the example of the
# MRMC literature. Figures as the README of the R package MRMCaov prints them, for the empirical AUC with DeLong's
# covariances.
TREATMENT_BY_READER, COV2, COV3, READERS = 0.0005510306, 0.0003440748, 0.0002390284, 5


def test_van_dykes_difference():
    found = difference(-0.04380032, [(2 * TREATMENT_BY_READER / READERS, READERS)], 2 * (COV2 - COV3))
    assert found.t == pytest.approx(-2.110999, abs=1e-5)
    assert found.freedom == pytest.approx(15.25967, abs=1e-4)
    assert found.p == pytest.approx(0.05166569, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(-0.0879594986, abs=1e-7), pytest.approx(0.0003588544, abs=1e-7))


@pytest.mark.parametrize(
    ("mean", "readers", "cov2", "low", "high"),
    [
        (0.8970370, 0.003082629, 0.0004839618, 0.8252236, 0.9688505),
        (0.9408374, 0.001304602, 0.0002041879, 0.8941378, 0.9875369),
    ],
)
def test_van_dykes_single_treatments(mean, readers, cov2, low, high):
    """Five figures and a covariance that have the published mean, MS(R) and Cov2."""
    figures = np.array([-2.0, -1, 0, 1, 2])
    figures = mean + figures * (readers / figures.var(ddof=1)) ** 0.5
    found = single(figures, np.full((5, 5), cov2), 114)
    assert (found.value, found.low, found.high) == (
        pytest.approx(mean),
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )


def test_the_parts_of_the_variance_come_from_the_right_places():
    """From raw figures and covariances, the textbook's MS(T x R), Cov2 and Cov3."""
    random = np.random.default_rng(0)
    values = (random.random((2, 4, 30)) < 0.7).astype(float)
    figures = values.mean(axis=2)
    covariance = np.cov(values.reshape(8, 30)) / 30
    gap = figures - figures.mean(axis=1, keepdims=True) - figures.mean(axis=0) + figures.mean()
    interaction = (gap**2).sum() / 3
    others = ~np.eye(4, dtype=bool)
    cov2 = (covariance[:4, :4][others].mean() + covariance[4:, 4:][others].mean()) / 2
    cov3 = covariance[:4, 4:][others].mean()
    error = (2 / 4 * (interaction + 4 * max(cov2 - cov3, 0))) ** 0.5
    found = contrast(figures.ravel(), covariance, 4, paired=True)
    assert found.value == pytest.approx(figures[1].mean() - figures[0].mean())
    assert found.t == pytest.approx(found.value / error)


def test_where_cases_do_not_matter_it_is_the_paired_t_test():
    figures = np.array([0.6, 0.7, 0.65, 0.8, 0.72, 0.75, 0.71, 0.81])
    found = contrast(figures, np.zeros((8, 8)), 4, paired=True)
    expected = stats.ttest_rel(figures[4:], figures[:4])
    assert (found.t, found.p, found.freedom) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), 3)


def test_where_cases_do_not_matter_unpaired_readers_are_welchs_t_test():
    figures = np.array([0.6, 0.7, 0.65, 0.8, 0.72, 0.75, 0.71, 0.81, 0.9])
    found = contrast(figures, np.zeros((9, 9)), 4, paired=False)
    expected = stats.ttest_ind(figures[4:], figures[:4], equal_var=False)
    assert (found.t, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert found.freedom == pytest.approx(expected.df)


def test_shares_without_any_spread_have_an_exact_interval():
    all_right = np.ones((2, 3, 20))
    found = pooled(all_right, (np.arange(3), np.arange(3)), mean_of_cases, (0.0, 1.0))
    assert found.without.low == pytest.approx(stats.binomtest(20, 20).proportion_ci().low)
    assert (found.without.value, found.without.high) == (1, 1)
    assert (found.difference.value, found.difference.p) == (0, None)


def test_fewer_than_three_cases_are_no_figure():
    assert pooled(np.ones((2, 3, 2)), (np.arange(3), np.arange(3))) is None


def test_areas_are_averaged_over_readers():
    random = np.random.default_rng(1)
    diseased = np.arange(40) % 2 == 0
    scores = random.normal(size=(2, 3, 40)) + 1.5 * diseased
    found = pooled(scores, (np.arange(3), np.arange(3)), area_under_curve(diseased), (0.0, 1.0))
    by_hand = [np.mean([a > b for a in row[diseased] for b in row[~diseased]]) for row in scores[1]]
    assert found.with_.value == pytest.approx(np.mean(by_hand))
