from __future__ import annotations

import numpy as np
import pytest

from training.datasets.record import DatasetError
from training.pooling import (
    CANDIDATES,
    CARRYING,
    Fit,
    Samples,
    by_group,
    composed,
    fit,
    measure,
    pool_rows,
    series_probabilities,
)

HEALTHY = np.array([2])
UNHEALTHY = [0, 1]


def blocks(count: int, size: int = 30, well: int = 400):
    """Diseased blocks of two labels and single healthy images, as the brain data have them."""
    groups = [f"block-{n}" for n in range(count) for _ in range(size)] + [f"single-{n}" for n in range(well)]
    labels = np.array([n % 2 for n in range(count) for _ in range(size)] + [2] * well)
    clusters = np.unique(groups, return_inverse=True)[1]
    return groups, labels, clusters


def evidence(labels: np.ndarray, random: np.random.Generator, strength: float = 2.5) -> np.ndarray:
    return np.eye(3)[labels] * strength + random.normal(0, 1, (len(labels), 3))


def test_a_group_is_labelled_with_the_disease_that_any_of_its_images_shows():
    groups = ["a", "b", "a", "a", "c", "b"]
    labels = np.array([2, 2, 1, 2, 0, 2])
    found = by_group(groups, labels, np.arange(6), HEALTHY)
    assert [rows.tolist() for rows in found.rows] == [[0, 2, 3], [1, 5], [4]]
    assert found.labels.tolist() == [1, 2, 0]
    assert found.carrying.tolist() == [1, 0, 1]


def test_composed_series_hold_what_they_say():
    groups, labels, clusters = blocks(4)
    found = composed(groups, labels, clusters, HEALTHY, slices=20, seed=0)
    healthy = found.labels == 2
    dealt = np.concatenate([rows for rows, well in zip(found.rows, healthy, strict=True) if well])
    assert len(dealt) == len(set(dealt.tolist())) == 400
    assert sorted(set(found.carrying.tolist())) == [0, *CARRYING]
    for rows, label, carrying in zip(found.rows, found.labels, found.carrying, strict=True):
        assert len(set(rows.tolist())) == 20
        assert (labels[rows] == label).sum() == (20 if label == 2 else carrying)
        assert len({groups[row] for row in rows if labels[row] != 2}) <= 1
    assert found.weights.sum() == pytest.approx(len(np.unique(found.clusters)))


def test_near_copies_of_healthy_images_are_dealt_next_to_each_other():
    groups, labels, clusters = blocks(2, well=200)
    copies = clusters.copy()
    copies[labels == 2] = clusters[labels == 2] // 10 * 10
    found = composed(groups, labels, copies, HEALTHY, slices=20, seed=0)
    sets = [set(copies[rows].tolist()) for rows, label in zip(found.rows, found.labels, strict=True) if label == 2]
    shared = sum(bool(one & other) for n, one in enumerate(sets) for other in sets[:n])
    assert shared <= len(sets)  # at the cuts only; dealt at random nearly all pairs would share some


def test_the_fit_finds_few_slices_and_undoes_wrong_confidence():
    random = np.random.default_rng(0)
    groups, labels, clusters = blocks(40, well=1600)
    samples = composed(groups, labels, clusters, HEALTHY, slices=20, seed=0)
    scaled = evidence(labels, random, 4)
    found = fit(scaled, samples, UNHEALTHY)
    assert set(found.losses) == set(CANDIDATES)
    assert found.strongest <= 3
    overconfident = fit(scaled * 4, samples, UNHEALTHY)
    assert overconfident.scale < found.scale / 2
    probs = series_probabilities(scaled * 4, samples, UNHEALTHY, overconfident)
    after = measure(probs, samples, UNHEALTHY, 0.5, resamples=50, seed=0)
    before = measure(
        series_probabilities(scaled * 4, samples, UNHEALTHY, Fit(1, 1.0, 0.0, {})),
        samples,
        UNHEALTHY,
        0.5,
        resamples=50,
        seed=0,
    )
    assert after["brier"].value < before["brier"].value
    assert abs(after["excess"].value) < abs(before["excess"].value)


def test_groups_that_tell_nothing_give_one_slice_and_nearly_the_identity():
    groups, labels, clusters = blocks(10, size=1, well=10)
    samples = by_group(groups, labels, clusters, HEALTHY)
    found = fit(np.eye(3)[labels] * 3.0, samples, UNHEALTHY)
    assert found.strongest == 1
    assert 0.5 < found.scale < 3


def test_too_few_groups_are_refused():
    groups, labels, clusters = blocks(4, well=4)
    with pytest.raises(DatasetError, match="fewer than 10 groups"):
        fit(np.zeros((len(labels), 3)), by_group(groups, labels, clusters, HEALTHY), UNHEALTHY)


def test_every_cluster_counts_once():
    rows = tuple(np.array([n]) for n in range(5))
    samples = Samples(rows, np.array([0, 0, 0, 2, 2]), np.array([0, 0, 0, 1, 2]), np.array([1, 1, 1, 0, 0]))
    probs = np.array([[0.9, 0, 0.1], [0.9, 0, 0.1], [0.3, 0, 0.7], [0.2, 0, 0.8], [0.6, 0, 0.4]])
    found = measure(probs, samples, UNHEALTHY, 0.5, resamples=20, seed=0)
    assert found["accuracy"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["sensitivity"].value == pytest.approx(2 / 3)
    assert found["specificity"].value == pytest.approx(1 / 2)
    assert found["excess"].value == pytest.approx((0.7 - 1 + 0.2 + 0.6) / 3)
    assert found["brier"].value == pytest.approx(((0.01 + 0.01 + 0.49) / 3 + 0.04 + 0.36) / 3)


def test_the_mean_of_the_strongest_is_what_is_pooled():
    scaled = np.array([[1.0, 0, 0], [3, 0, 0], [0, 0, 3]])
    samples = Samples((np.arange(3),), np.array([0]), np.array([0]), np.array([2]))
    np.testing.assert_allclose(pool_rows(scaled, samples, UNHEALTHY, 2), [[2, 0, 0]])
