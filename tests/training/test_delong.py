from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.delong import areas, compare_areas


def by_definition(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 3 to 5 of DeLong et al. (1988), pair by pair."""
    kernel = np.array(
        [[[(x > y) + 0.5 * (x == y) for y in row[~positive]] for x in row[positive]] for row in scores], float
    )
    m, n = kernel.shape[1:]
    theta = kernel.mean(axis=(1, 2))
    v10 = kernel.mean(axis=2) - theta[:, None]
    v01 = kernel.mean(axis=1) - theta[:, None]
    return theta, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12), st.booleans())
def test_sorting_gives_what_pairs_give(seed, diseased, healthy, ties):
    random = np.random.default_rng(seed)
    positive = random.permutation(np.arange(diseased + healthy) < diseased)
    scores = random.normal(size=(3, diseased + healthy)) + positive
    scores = np.round(scores) if ties else scores
    values, covariance = areas(scores, positive)
    theta, expected = by_definition(scores, positive)
    np.testing.assert_allclose(values, theta, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    assert values[0] == pytest.approx(roc_auc_score(positive, scores[0]))


def test_the_test_holds_its_level_and_its_interval_the_difference():
    random = np.random.default_rng(0)
    positive = np.arange(80) < 40
    found = []
    for _ in range(400):
        common = random.normal(size=80) + positive
        found.append(compare_areas(common + random.normal(size=80), common + random.normal(size=80), positive))
    assert 0.02 <= np.mean([f.p < 0.05 for f in found]) <= 0.08
    assert 0.92 <= np.mean([f.low <= 0 <= f.high for f in found]) <= 0.98


def test_a_score_against_itself_does_not_differ():
    scores, positive = np.arange(10.0), np.arange(10) % 2 == 0
    found = compare_areas(scores, scores * 3 + 1, positive)
    assert (found.difference, found.z, found.p) == (0, 0, 1)


def test_one_case_of_a_kind_has_no_variance():
    with pytest.raises(ValueError, match="two positive and two negative"):
        areas(np.zeros((1, 5)), np.arange(5) == 0)
