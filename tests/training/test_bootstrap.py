from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.bootstrap import draw, estimate


def test_groups_are_drawn_whole_and_within_their_label():
    groups = np.array(["a", "a", "b", "c", "c", "c", "d"])
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    drawn = draw(groups, labels, 500, seed=0)
    assert drawn.groups == 4
    assert (drawn.counts.sum(axis=1) == 4).all()
    by_label = drawn.totals(np.eye(2)[labels])
    assert {tuple(row) for row in drawn.counts[:, :2]} == {(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)}
    assert set(by_label[:, 0]) == {2.0, 3.0, 4.0}  # b b, a b, a a
    assert set(by_label[:, 1]) == {2.0, 4.0, 6.0}


def test_the_interval_of_independent_images_is_the_binomial_one():
    random = np.random.default_rng(0)
    hits = random.random(400) < 0.8
    drawn = draw(np.arange(400), np.zeros(400, np.int64), 4000, seed=1)
    found = drawn.ratio(hits)
    assert found.value == pytest.approx(hits.mean())
    half = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert found.high - found.value == pytest.approx(half, rel=0.12)
    assert found.value - found.low == pytest.approx(half, rel=0.12)


def test_images_of_one_patient_do_not_count_as_independent():
    hits = np.repeat(np.random.default_rng(0).random(40) < 0.7, 10)
    labels = np.zeros(400, np.int64)
    grouped = draw(np.repeat(np.arange(40), 10), labels, 2000, seed=0).ratio(hits)
    alone = draw(np.arange(400), labels, 2000, seed=0).ratio(hits)
    assert grouped.value == alone.value
    assert (grouped.high - grouped.low) > 2.5 * (alone.high - alone.low)


@given(st.integers(0, 1000), st.integers(1, 30))
def test_a_seed_gives_the_same_draws(seed, images):
    labels = np.arange(images) % 3
    first, second = (draw(np.arange(images) // 2, labels, 5, seed) for _ in range(2))
    np.testing.assert_array_equal(first.counts, second.counts)


def test_undefined_values_have_no_estimate():
    drawn = draw(np.arange(3), np.zeros(3, np.int64), 10, seed=0)
    assert drawn.ratio(np.ones(3), np.zeros(3)) is None
    assert estimate(float("nan"), np.ones(3)) is None
    assert estimate(1.0, np.full(3, np.nan)) is None


def test_nothing_cannot_be_resampled():
    with pytest.raises(ValueError, match="no images"):
        draw([], np.zeros(0, np.int64), 10, seed=0)
