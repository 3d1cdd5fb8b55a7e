from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

from training.statistics import compare_paired, mcnemar

# Student's own data (Biometrika 1908): hours of sleep gained with two drugs, ten patients.
FIRST = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SECOND = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_students_sleep_data():
    found = compare_paired(SECOND, FIRST)
    assert found.difference == pytest.approx(1.58)
    assert (found.t, found.freedom, found.p) == (pytest.approx(4.0621, abs=1e-4), 9, pytest.approx(0.002833, abs=1e-6))
    assert (found.low, found.high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))
    assert found.effect == pytest.approx(1.2846, abs=1e-4)
    assert found.effect_low < found.effect < found.effect_high
    assert found.normal_p == pytest.approx(stats.shapiro(SECOND - FIRST).pvalue)
    assert found.wilcoxon_p < 0.01


def test_the_effects_interval_covers_the_true_effect_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = compare_paired(random.normal(0.5, 1, 20), np.zeros(20))
        covered += found.effect_low <= 0.5 <= found.effect_high
    assert 0.9 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones(4), np.ones(5), "same length"),
        (np.ones(2), np.zeros(2), "too few"),
        (np.arange(5.0), np.arange(5.0) - 1, "all differences are alike"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        compare_paired(a, b)


def test_mcnemar_counts_disagreements_only():
    first = np.array([True] * 50 + [True] * 9 + [False] * 1 + [False] * 40)
    second = np.array([True] * 50 + [False] * 9 + [True] * 1 + [False] * 40)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p == pytest.approx(2 * stats.binom.cdf(1, 10, 0.5))
    assert (mcnemar(first, first).p, mcnemar(first, first).mid_p) == (1.0, 1.0)


def test_mcnemar_needs_the_same_images():
    with pytest.raises(ValueError, match="not those of the same images"):
        mcnemar(np.ones(3, np.bool_), np.ones(4, np.bool_))


def test_agrestis_approval_ratings():
    """Agresti, Categorical Data Analysis (2002), section 10.1: z = (86 - 150) / sqrt(86 + 150) = -4.17."""
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    second = np.repeat([True, False, True, False], [794, 150, 86, 570])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (150, 86)
    assert (found.only_second - found.only_first) / (found.only_first + found.only_second) ** 0.5 == pytest.approx(
        -4.17, abs=5e-3
    )
    assert found.p == pytest.approx(exact_mcnemar([[794, 150], [86, 570]]).pvalue)
    assert found.mid_p == pytest.approx(2 * stats.norm.sf(4.17), rel=0.15)


def test_fagerlands_mid_p():
    """Fagerland et al. (BMC Med. Res. Methodol. 13 (2013) 91), airway responsiveness, 1 and 7: 0.070, 0.039."""
    first = np.repeat([True, True, False, False], [1, 1, 7, 12])
    second = np.repeat([True, False, True, False], [1, 1, 7, 12])
    found = mcnemar(first, second)
    assert (found.p, found.mid_p) == (pytest.approx(0.070, abs=5e-4), pytest.approx(0.039, abs=5e-4))


def test_hollander_and_wolfes_depression_scale():
    """Hollander & Wolfe, Nonparametric Statistical Methods (1973); R's wilcox.test gives the one-sided 0.01953."""
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert compare_paired(before, after).wilcoxon_p == pytest.approx(2 * 0.01953, abs=1e-5)


@pytest.mark.parametrize("shift", [-40.0, -7.0, 0.0, 7.0, 40.0])
def test_strong_effects_have_an_interval_too(shift):
    found = compare_paired(shift + np.arange(6.0) - 2.5, np.zeros(6))
    assert found.effect_low < found.effect < found.effect_high
    for edge, tail in ((found.effect_low, 0.975), (found.effect_high, 0.025)):
        assert stats.nct.cdf(found.t, 5, edge * 6**0.5) == pytest.approx(tail, abs=1e-6)
