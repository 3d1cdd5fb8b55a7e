from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.field_of_view import registration_fill
from service.preprocessing import (
    _counted,
    _percentiles,
    prepare,
    prepare_mask,
)
from service.rendering import on_frame
from service.types import Frame, PreprocessingSpec

HEAD = PreprocessingSpec(field_of_view="head")
SCAN = PreprocessingSpec(field_of_view="scan")
WHOLE = PreprocessingSpec(field_of_view="frame", margin=0)


def head(height: int = 400, width: int = 300, centre=(200, 140), axes=(120, 90)) -> np.ndarray:
    image = np.zeros((height, width), np.uint8)
    cv2.ellipse(image, (centre[1], centre[0]), (axes[1], axes[0]), 0, 0, 360, 120, -1)
    cv2.circle(image, (centre[1] + 30, centre[0] - 40), 12, 230, -1)
    return image


def test_the_head_fills_the_input_and_the_region_is_where_it_was():
    item = prepare(Frame("a", head()), HEAD)
    assert item.pixels.shape == (224, 224)
    assert item.pixels.dtype == np.uint8
    assert item.region.width == item.region.height == pytest.approx(241 * 1.04, rel=0.03)
    assert item.region.x + item.region.width / 2 == pytest.approx(140, abs=3)
    assert item.region.y + item.region.height / 2 == pytest.approx(200, abs=3)


def test_burnt_in_text_and_a_thin_frame_do_not_move_the_crop():
    clean = prepare(Frame("a", head()), HEAD).region
    marked = head()
    cv2.putText(marked, "W 90 L 40", (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
    cv2.rectangle(marked, (0, 0), (299, 399), 255, 1)
    found = prepare(Frame("a", marked), HEAD).region
    assert (found.x, found.y, found.width) == pytest.approx((clean.x, clean.y, clean.width), abs=6)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_same_head_at_another_size_gives_nearly_the_same_input(factor):
    one = prepare(Frame("a", head()), HEAD).pixels.astype(int)
    scaled = cv2.resize(head(), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    other = prepare(Frame("a", scaled), HEAD).pixels.astype(int)
    assert np.abs(one - other).mean() < 4


@pytest.mark.parametrize(("gain", "offset"), [(0.3, 0.0), (40.0, -500.0)])
def test_scale_and_offset_of_the_grey_values_do_not_matter(gain, offset):
    one = prepare(Frame("a", head().astype(np.float32)), HEAD).pixels.astype(int)
    other = prepare(Frame("a", head().astype(np.float32) * gain + offset), HEAD).pixels.astype(int)
    assert np.abs(one - other).max() <= 1


def test_the_white_triangles_of_oct_become_black_and_do_not_change_the_window():
    rng = np.random.default_rng(0)
    scan = rng.integers(10, 90, (300, 400), np.uint8)
    scan[140:160] = rng.integers(120, 200, (20, 400), np.uint8)
    plain = prepare(Frame("a", scan), SCAN).pixels
    with_fill = scan.copy()
    cv2.fillPoly(with_fill, [np.array([[200, 0], [399, 0], [399, 60]])], 255)
    fill = registration_fill(with_fill)
    assert fill[10, 350]
    assert not fill[150, 200]
    item = prepare(Frame("a", with_fill), SCAN)
    assert item.pixels[120:].astype(int) == pytest.approx(plain[120:].astype(int), abs=3)
    assert (item.pixels[32:38, 205:215] == 0).all()


def test_bright_tissue_inside_is_not_taken_for_fill():
    scan = np.full((100, 100), 40, np.uint8)
    scan[40:60, 20:80] = 255
    assert not registration_fill(scan).any()


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 80), st.integers(1, 80))),
    st.sampled_from([HEAD, SCAN, WHOLE]),
)
def test_any_image_gives_an_input_and_a_square_region(pixels, spec):
    item = prepare(Frame("a", pixels), spec)
    assert item.pixels.shape == (224, 224)
    assert item.region.width == item.region.height > 0


def test_a_mask_lands_where_its_lesion_lands():
    image = head()
    mask = np.zeros_like(image)
    cv2.circle(mask, (170, 160), 12, 1, -1)
    item = prepare(Frame("a", image), HEAD)
    placed = prepare_mask(mask, item) > 127
    bright = item.pixels > 200
    assert (placed & bright).sum() / (placed | bright).sum() > 0.85


def test_a_map_goes_back_to_the_pixels_that_it_came_from():
    image = head()
    item = prepare(Frame("a", image), HEAD)
    cells = np.zeros((7, 7), np.float32)
    blob = cv2.resize(item.pixels, (7, 7), interpolation=cv2.INTER_AREA)
    row, column = np.unravel_index(np.argmax(blob), blob.shape)
    cells[row, column] = 1
    back = on_frame(cells, item.region, image.shape)
    y, x = np.unravel_index(np.argmax(back), back.shape)
    side = item.region.width / 7
    assert (x, y) == pytest.approx((item.region.x + (column + 0.5) * side, item.region.y + (row + 0.5) * side), abs=1.5)
    outside = on_frame(np.ones((7, 7), np.float32), item.region, image.shape)
    assert outside[0, -1] == 0
    assert outside[200, 140] == 1


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.tuples(st.floats(0, 50), st.floats(50, 100)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_levels_are_counted_to_the_last_bit_of_what_sorting_gives(pixels, window, masked, seed):
    inside = np.random.default_rng(seed).random(pixels.shape) < 0.5 if masked else None
    check_percentiles(pixels, inside, window)


@given(
    arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.integers(-(2**24), 2**24),
    st.sampled_from([1.0, 0.5, 3.0, 0.37]),
    st.tuples(st.floats(0, 100), st.floats(0, 100)),
    st.booleans(),
)
def test_values_of_detectors_too_and_others_are_sorted(stored, intercept, slope, window, masked):
    pixels = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    inside = np.random.default_rng(0).random(pixels.shape) < 0.5 if masked else None
    check_percentiles(pixels, inside, window)


def check_percentiles(pixels, inside, window) -> None:
    chosen = pixels if inside is None else pixels[inside]
    expected = tuple(np.percentile(chosen, window)) if chosen.size else (0.0, 1.0)
    assert _percentiles(pixels, inside, window) == expected


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ([-1024, 3071], True),
        ([0, 65535], True),
        ([0, 65536], False),
        ([0, 0.5], False),
        ([0.5, 1.5], False),
        ([0, np.nan], False),
        ([-np.inf, 0], False),
        ([0, np.inf], False),
        ([2**24, 2**24 + 2], False),
    ],
)
def test_only_whole_numbers_within_sixteen_bits_are_counted(values, counted):
    assert (_counted(np.array([values], np.float32), None) is not None) == counted
