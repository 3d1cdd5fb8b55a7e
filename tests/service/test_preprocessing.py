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
    prepare_series,
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


def regridded(image: np.ndarray, rows: float, columns: float) -> Frame:
    """The same picture on a finer grid, whose pixels are no squares."""
    fine = cv2.resize(image, None, fx=columns, fy=rows, interpolation=cv2.INTER_CUBIC)
    return Frame("fine", fine, aspect=columns / rows)


@pytest.mark.parametrize("factors", [(1.5, 1), (1, 1.5), (2, 3), (0.5, 1)])
@pytest.mark.parametrize("spec", [HEAD, WHOLE])
def test_the_grid_of_the_pixels_does_not_matter_where_its_spacing_is_said(factors, spec):
    one, other = prepare(Frame("a", head()), spec), prepare(regridded(head(), *factors), spec)
    assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 6
    for here, there, factor in (
        (one.region.x, other.region.x, factors[1]),
        (one.region.y, other.region.y, factors[0]),
        (one.region.width, other.region.width, factors[1]),
        (one.region.height, other.region.height, factors[0]),
    ):
        assert there / factor == pytest.approx(here, abs=4)


def test_pixels_without_a_spacing_are_those_of_the_training_data():
    wide = PreprocessingSpec(field_of_view="frame", margin=0, pixel_aspect=0.5)
    untold = prepare(Frame("a", head()), wide)
    assert untold.pixels.tolist() == prepare(Frame("a", head()), WHOLE).pixels.tolist()
    assert untold.pixels.tolist() == prepare(Frame("a", head(), aspect=0.5), wide).pixels.tolist()
    square = prepare(Frame("a", head(), aspect=1.0), wide)
    assert square.region.width == 2 * square.region.height


@pytest.mark.parametrize("aspect", [1e-6, 1e6])
def test_a_spacing_that_no_device_has_is_not_believed(aspect):
    found = prepare(Frame("a", head(), aspect=aspect), WHOLE)
    assert found.region.width == found.region.height


@pytest.mark.parametrize(("shape", "aspect"), [((16_384, 300), 64.0), ((300, 16_384), 60.0), ((4000, 4000), 1.0)])
def test_memory_is_bounded_whatever_the_shape(shape, aspect):
    import tracemalloc

    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    tracemalloc.start()
    found = prepare(Frame("a", pixels, aspect=aspect), WHOLE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.pixels.shape == (224, 224)
    assert found.pixels.any()
    assert peak < 3 * pixels.size + 16 * 2**20


def scalp(dim: int) -> np.ndarray:
    """A bright brain within a dim ring, with ears, and noise in the air."""
    image = np.random.default_rng(5).integers(0, 4, (300, 260), np.uint8)
    cv2.ellipse(image, (130, 150), (110, 130), 0, 0, 360, dim, 5)
    cv2.rectangle(image, (8, 140), (18, 160), dim, -1)
    cv2.ellipse(image, (130, 150), (88, 106), 0, 0, 360, 210, -1)
    return image


@pytest.mark.parametrize("dim", [30, 60, 120])
def test_dim_scalp_and_ears_are_not_cut(dim):
    region = prepare(Frame("a", scalp(dim)), PreprocessingSpec(field_of_view="head", margin=0)).region
    assert region.x <= 8
    assert region.x + region.width >= 242
    assert region.y <= 18
    assert region.y + region.height >= 282
    assert region.height < 300


def test_the_slices_of_a_series_share_the_crop_that_holds_all_of_their_heads():
    small, large = head(axes=(40, 30)), head(axes=(120, 90))
    together = prepare_series([Frame("1", small), Frame("2", large), Frame("3", small)], HEAD)
    alone = prepare(Frame("2", large), HEAD)
    assert {one.region for one in together} == {alone.region}
    assert prepare(Frame("1", small), HEAD).region != alone.region
    assert (together[1].pixels == alone.pixels).all()


def test_slices_that_lie_otherwise_have_a_crop_of_their_own_and_keep_their_place():
    frames = [Frame("1", head()), Frame("2", head()[:300]), Frame("3", head())]
    found = prepare_series(frames, HEAD)
    assert found[0].region == found[2].region == prepare(frames[0], HEAD).region
    assert (found[1].pixels == prepare(frames[1], HEAD).pixels).all()


def test_a_long_series_has_its_threshold_from_slices_spread_over_it():
    frames = [Frame(str(n), head(axes=(40, 30)) if n < 100 else head()) for n in range(130)]
    assert {one.region for one in prepare_series(frames, HEAD)} == {prepare(Frame("a", head()), HEAD).region}


def test_padding_around_the_picture_changes_nothing():
    inner = head()
    outer = np.pad(inner.astype(np.float32), ((40, 10), (0, 70)), constant_values=-2000)
    padding = np.pad(np.zeros(inner.shape, bool), ((40, 10), (0, 70)), constant_values=True)
    one, other = prepare(Frame("a", inner), HEAD), prepare(Frame("b", outer, padding=padding), HEAD)
    assert (one.pixels == other.pixels).all()
    assert (other.region.x, other.region.y) == (one.region.x, one.region.y + 40)
    hole = padding.copy()
    hole[150:200, 100:120] = True  # and what lies within it is black
    assert (prepare(Frame("c", outer, padding=hole), HEAD).pixels == 0).sum() > (other.pixels == 0).sum() + 600


def test_what_the_model_does_not_see_is_said():
    assert prepare(Frame("a", head(400, 400, (200, 200), (200, 200))), WHOLE).unseen == 0
    found = prepare(Frame("a", head()), HEAD)
    seen = np.zeros((400, 300))
    x, y, side = int(found.region.x), int(found.region.y), int(found.region.width)
    seen[max(y, 0) : y + side, max(x, 0) : x + side] = 1
    assert found.unseen == pytest.approx(1 - seen.mean(), abs=0.02)
    assert 0.3 < found.unseen < 0.7
