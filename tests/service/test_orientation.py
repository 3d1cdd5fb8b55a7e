from __future__ import annotations

import itertools

import numpy as np
import pytest

from service.orientation import (
    plane_of,
    region_turned_back,
    turn_code,
    turn_from_code,
    turn_of,
    turned,
    turned_back,
    usable_orientation,
)
from service.preprocessing import prepare
from service.types import UPRIGHT, Frame, PreprocessingSpec, Region, Turn

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
TURNS = [Turn(*flags) for flags in itertools.product([False, True], repeat=3)]


def tilted(degrees: float) -> tuple[float, ...]:
    """An axial slice, tilted about the patient's left-right axis."""
    angle = np.radians(degrees)
    return (1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle)))


def stored_by(turn: Turn, orientation: tuple[float, ...]) -> tuple[float, ...]:
    """The orientation of an image that `turn` brings to the given one."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    row, column = row * (-1 if turn.flip_columns else 1), column * (-1 if turn.flip_rows else 1)
    return tuple(map(float, (*column, *row) if turn.transpose else (*row, *column)))


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        (CORONAL, "coronal"),
        (SAGITTAL, "sagittal"),
        ((0, -1, 0, -1, 0, 0), "axial"),
        (tilted(30), "axial"),
        (tilted(45), "oblique"),
        (tilted(70), "coronal"),
        (None, None),
    ],
)
def test_the_plane_is_that_of_the_normal(orientation, plane):
    assert plane_of(usable_orientation(orientation)) == plane


@pytest.mark.parametrize("values", [None, (1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0)])
def test_what_are_no_directions_is_no_orientation(values):
    assert usable_orientation(values) is None


@pytest.mark.parametrize("shown", [AXIAL, CORONAL, SAGITTAL, tilted(20), tilted(44)])
@pytest.mark.parametrize("turn", TURNS)
def test_every_way_to_store_a_slice_is_turned_to_the_same_display(shown, turn):
    found = turn_of(usable_orientation(stored_by(turn, shown)), "patient")
    assert found == turn
    assert turn_from_code(turn_code(found)) == found


@pytest.mark.parametrize("turn", TURNS)
def test_a_b_scan_is_turned_to_the_vitreous_at_the_top(turn):
    for across in ((1, 0, 0), (0, 0, 1)):  # a horizontal and a vertical scan
        assert turn_of(usable_orientation(stored_by(turn, (*across, 0, 1, 0))), "depth") == turn
    assert turn_of(CORONAL, "depth") == UPRIGHT  # an en-face image has no depth


def test_nothing_is_turned_without_an_orientation_or_where_the_model_wants_none():
    assert turn_of(None, "patient") == turn_of((-1, 0, 0, 0, -1, 0), "stored") == UPRIGHT


@pytest.mark.parametrize("turn", TURNS)
def test_turns_are_undone_in_pixels_and_in_rectangles(turn):
    image = np.arange(6 * 9).reshape(6, 9)
    there = turned(image, turn)
    assert np.array_equal(turned_back(there, turn), image)
    region = Region(1, 2, 3, 2)
    part = there[2:4, 1:4]
    back = region_turned_back(region, turn, there.shape)
    x, y, width, height = (int(value) for value in (back.x, back.y, back.width, back.height))
    assert np.array_equal(turned_back(part, turn), image[y : y + height, x : x + width])


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("view", ["head", "frame"])
def test_the_model_sees_the_same_pixels_however_they_are_stored(turn, view):
    random = np.random.default_rng(3)
    shown = np.zeros((120, 90), np.uint8)
    shown[20:90, 15:70] = random.integers(60, 250, (70, 55))
    spec = PreprocessingSpec(field_of_view=view, orientation="patient", size=64)
    expected = prepare(Frame("a", shown, aspect=1.5, orientation=AXIAL), spec)
    stored = np.ascontiguousarray(turned_back(shown, turn))
    frame = Frame("b", stored, aspect=1 / 1.5 if turn.transpose else 1.5, orientation=stored_by(turn, AXIAL))
    found = prepare(frame, spec)
    assert np.array_equal(found.pixels, expected.pixels)
    assert found.turn == turn
    assert found.unseen == expected.unseen
    assert region_turned_back(expected.region, turn, shown.shape) == found.region
