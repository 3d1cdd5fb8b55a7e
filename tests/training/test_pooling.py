from __future__ import annotations

import numpy as np
import pytest

from training.datasets.prepared import Prepared
from training.datasets.record import DatasetError
from training.pooling import (
    CANDIDATES,
    DEALT,
    LEAST,
    Fit,
    Samples,
    fit,
    measure,
    pool_rows,
    series_of,
    series_probabilities,
)

HEALTHY = np.array([2])
UNHEALTHY = [0, 1]


def images(
    labels: np.ndarray, groups: list[str], *, weightings: list[str] | None = None, typed: np.ndarray | None = None
) -> Prepared:
    """Images that show nothing, with what is known of them."""
    count = len(labels)
    nothing = np.zeros((count, 1, 1), np.uint8)
    return Prepared(
        images=nothing,
        masks=nothing,
        has_mask=np.zeros(count, np.bool_),
        labels=labels,
        groups=tuple(groups),
        ids=tuple(f"image-{n}" for n in range(count)),
        sources=("one",) * count,
        weightings=tuple(weightings or [""] * count),
        typed=np.ones(count, np.bool_) if typed is None else typed,
    )


def volumes(count: int, size: int = 20) -> tuple[Prepared, np.ndarray]:
    """Volumes of two labels; every third shows nothing, in the others two images show the label."""
    labels = np.full((count, size), 2)
    for number in range(count):
        if number % 3 < 2:
            labels[number, 4:6] = number % 3
    groups = [f"patient-{n}" for n in range(count) for _ in range(size)]
    return images(labels.ravel(), groups), np.repeat(np.arange(count), size)


def evidence(labels: np.ndarray, random: np.random.Generator, strength: float = 2.5) -> np.ndarray:
    return np.eye(3)[labels] * strength + random.normal(0, 1, (len(labels), 3))


def test_a_series_is_labelled_with_the_disease_that_any_of_its_images_shows():
    data = images(np.array([2, 2, 1, 2, 0, 2]), ["a", "b", "a", "a", "c", "b"])
    found = series_of(data, np.array([0, 1, 0, 0, 2, 1]), HEALTHY)
    assert [rows.tolist() for rows in found.rows] == [[0, 2, 3], [1, 5], [4]]
    assert found.labels.tolist() == [1, 2, 0]
    assert found.clusters.tolist() == [0, 1, 2]
    assert found.kinds == ("one",) * 3


def test_weightings_are_series_of_their_own_and_what_shows_nothing_is_one_more():
    labels = np.array([0] + [2] * LEAST + [0] + [2] * (LEAST - 1))
    weightings = ["T1"] * (LEAST + 1) + ["FLAIR"] * LEAST
    data = images(labels, ["a"] * len(labels), weightings=weightings, typed=labels == 2)
    found = series_of(data, np.zeros(len(labels), np.int64), HEALTHY)
    assert [rows.tolist() for rows in found.rows] == [
        list(range(LEAST + 1)),
        list(range(1, LEAST + 1)),
        list(range(LEAST + 1, len(labels))),
    ]
    assert found.labels.tolist() == [0, 2, 0]
    assert found.typed.tolist() == [False, True, False]
    assert found.kinds == ("one T1", "one T1", "one FLAIR")


def test_healthy_images_of_unknown_patients_are_dealt_out_near_copies_together():
    count = 2 * DEALT + 3
    data = images(np.full(count, 2), [f"image-{n}" for n in range(count)])
    copies = np.arange(count) % (count // 2)
    found = series_of(data, copies, HEALTHY)
    assert [len(rows) for rows in found.rows] == [DEALT, DEALT, 3]
    shared = set(copies[found.rows[0]].tolist()) & set(copies[found.rows[1]].tolist())
    assert len(shared) <= 1


def test_the_fit_finds_few_slices_and_undoes_wrong_confidence():
    random = np.random.default_rng(0)
    data, clusters = volumes(90)
    samples = series_of(data, clusters, HEALTHY)
    scaled = evidence(data.labels, random, 3)
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


def test_which_disease_an_untyped_series_shows_does_not_count():
    labels = np.array([0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2])
    data = images(labels, [f"patient-{n}" for n in range(12)], typed=labels == 2)
    samples = series_of(data, np.arange(12), HEALTHY)
    other = np.eye(3)[np.where(labels == 0, 1, 2)] * 6.0  # sure, and of the other disease
    probs = series_probabilities(other, samples, UNHEALTHY, fit(other, samples, UNHEALTHY))
    found = measure(probs, samples, UNHEALTHY, 0.5, resamples=20, seed=0)
    assert found["sensitivity"].value == found["specificity"].value == 1
    assert found["accuracy"].value == 1  # of the healthy ones, whose class is known
    assert fit(other, samples, UNHEALTHY).scale > 0.5


def test_groups_that_tell_nothing_give_one_slice_and_nearly_the_identity():
    labels = np.array([0, 1] * 5 + [2] * 10)
    samples = series_of(images(labels, [f"patient-{n}" for n in range(20)]), np.arange(20), HEALTHY)
    found = fit(np.eye(3)[labels] * 3.0, samples, UNHEALTHY)
    assert found.strongest == 1
    assert 0.5 < found.scale < 3


def test_too_few_groups_are_refused():
    data, clusters = volumes(8)
    with pytest.raises(DatasetError, match="fewer than 10 groups"):
        fit(np.zeros((len(data), 3)), series_of(data, clusters, HEALTHY), UNHEALTHY)


def test_every_cluster_counts_once():
    rows = tuple(np.array([n]) for n in range(5))
    samples = Samples(rows, np.array([0, 0, 0, 2, 2]), np.array([0, 0, 0, 1, 2]), np.ones(5, np.bool_), ("one",) * 5)
    probs = np.array([[0.9, 0, 0.1], [0.9, 0, 0.1], [0.3, 0, 0.7], [0.2, 0, 0.8], [0.6, 0, 0.4]])
    found = measure(probs, samples, UNHEALTHY, 0.5, resamples=20, seed=0)
    assert found["accuracy"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["sensitivity"].value == pytest.approx(2 / 3)
    assert found["specificity"].value == pytest.approx(1 / 2)
    assert found["excess"].value == pytest.approx((0.7 - 1 + 0.2 + 0.6) / 3)
    assert found["brier"].value == pytest.approx(((0.01 + 0.01 + 0.49) / 3 + 0.04 + 0.36) / 3)


def test_the_mean_of_the_strongest_is_what_is_pooled():
    scaled = np.array([[1.0, 0, 0], [3, 0, 0], [0, 0, 3]])
    samples = Samples((np.arange(3),), np.array([0]), np.array([0]), np.array([True]), ("one",))
    np.testing.assert_allclose(pool_rows(scaled, samples, UNHEALTHY, 2), [[2, 0, 0]])
