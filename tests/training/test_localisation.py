from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from training.localisation import (
    average_precision,
    cell_precision,
    centre_map,
    energy_inside,
    peak_inside,
    pointing_game,
    random_map,
    share_inside,
)

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


def test_only_the_cell_over_the_lesion_has_its_peak_inside():
    hits = {(row, column) for row in range(7) for column in range(7) if peak_inside(one_cell(row, column), MASK)}
    assert hits == {(1, 5)}


def test_a_plateau_counts_by_its_middle_cell():
    plateau = np.zeros((7, 7), np.float32)
    plateau[1, 4:7] = 2.0  # the middle cell is the lesion's
    assert peak_inside(plateau, MASK)
    plateau[1, 2:7] = 2.0  # now it is the cell beside it
    assert not peak_inside(plateau, MASK)


def test_two_peaks_count_by_the_one_nearest_to_between_them_not_by_the_place_between():
    apart = one_cell(1, 5)
    apart[5, 1] = 3
    between = np.zeros((56, 56), np.uint8)
    between[24:32, 24:32] = 1
    assert not peak_inside(apart, between)


def test_the_share_inside_counts_cells_by_area():
    assert share_inside(one_cell(1, 5), MASK) == 1.0
    assert share_inside(one_cell(1, 4), MASK) == 0.0
    assert share_inside(np.ones((7, 7)), MASK) == pytest.approx(1 / 49)
    half = np.zeros((56, 56), np.uint8)
    half[8:16, 44:52] = 1  # half in one cell, half in the next
    assert share_inside(one_cell(1, 5), half) == 0.5


def test_cells_that_do_not_hold_whole_pixels_lose_none():
    mask = np.zeros((10, 10), np.uint8)
    mask[:, :5] = 1
    assert share_inside(np.ones((3, 3)), mask) == pytest.approx(0.5)
    left = np.zeros((3, 3))
    left[:, 1] = 1  # from 10/3 to 20/3, of which up to 5 is inside
    assert share_inside(left, mask) == pytest.approx(0.5)


def test_cell_precision_ranks_cells_on_one_grid_whatever_the_maps():
    assert cell_precision(one_cell(1, 5), MASK) == 1.0
    assert cell_precision(np.kron(one_cell(1, 5), np.ones((4, 4))), MASK) == 1.0
    assert cell_precision(np.ones((7, 7)), MASK) == pytest.approx(1 / 49)
    assert cell_precision(-one_cell(1, 5), MASK) < 1 / 40


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_average_precision_is_scikit_learns(rows):
    inside, values = np.array([True, *(r[0] for r in rows)]), np.array([2.0, *(r[1] for r in rows)])
    assert average_precision(inside, values) == pytest.approx(average_precision_score(inside, values))


def test_a_lesion_smaller_than_a_cell_is_that_cell():
    point = np.zeros((224, 224), np.uint8)
    point[100, 100] = 1
    values = np.zeros((28, 28))
    values[12, 12] = 1
    assert cell_precision(values, point) == 1.0
    assert cell_precision(values, np.zeros((224, 224), np.uint8)) == 0.0


@pytest.mark.parametrize("measure", [peak_inside, share_inside, cell_precision])
def test_the_measures_of_cells_refuse_what_is_no_map(measure):
    with pytest.raises(ValueError):
        measure(np.full((7, 7), np.nan), MASK)
    with pytest.raises(ValueError):
        measure(np.ones(7), MASK)
    if measure is not cell_precision:
        assert not measure(-np.ones((7, 7)), np.ones((56, 56), np.uint8))
