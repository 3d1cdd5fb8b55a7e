from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.localisation import centre_map, energy_inside, pointing_game, random_map

MASK = np.zeros((56, 56), np.uint8)
MASK[8:16, 40:48] = 1  # the cell in row 1, column 5 of a 7 x 7 grid


def one_cell(row: int, column: int, grid: int = 7) -> np.ndarray:
    values = np.full((grid, grid), -1.0, np.float32)
    values[row, column] = 3
    return values


def test_only_the_right_cell_points_at_the_lesion():
    hits = {(row, column) for row in range(7) for column in range(7) if pointing_game(one_cell(row, column), MASK)}
    assert hits == {(1, 5)}


def test_energy_is_the_share_of_positive_values():
    assert energy_inside(np.ones((56, 56)), MASK) == pytest.approx(64 / 56**2)
    assert energy_inside(np.where(MASK, 2.0, -5.0), MASK) == 1.0
    assert energy_inside(np.where(MASK, -2.0, 5.0), MASK) == 0.0
    assert 0.25 < energy_inside(one_cell(1, 5), MASK) < 1


@pytest.mark.parametrize("values", [np.zeros((7, 7)), -np.ones((7, 7))])
def test_a_map_without_evidence_marks_nothing(values):
    full = np.ones((56, 56), np.uint8)
    assert not pointing_game(values, full)
    assert energy_inside(values, full) == 0.0


def test_a_flat_map_points_at_the_centre():
    centre = np.zeros((57, 57), np.uint8)
    centre[28, 28] = 1
    assert pointing_game(np.ones((7, 7)), centre)


def test_an_empty_mask_is_never_hit():
    assert not pointing_game(np.ones((7, 7)), np.zeros((56, 56), np.uint8))


@given(st.integers(1, 16), st.integers(1, 16))
def test_the_centre_map_is_symmetric(height, width):
    values = centre_map((height, width))
    np.testing.assert_array_equal(values, values[::-1, ::-1])
    assert values.max() == 1


def test_noise_depends_on_the_seed_alone():
    first, second = (random_map((7, 7), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0 <= first.min() < first.max() <= 1


@pytest.mark.parametrize("values", [np.ones(7), np.ones((0, 7)), np.full((7, 7), np.nan)])
def test_what_is_no_map_is_refused(values):
    with pytest.raises(ValueError):
        pointing_game(values, MASK)
