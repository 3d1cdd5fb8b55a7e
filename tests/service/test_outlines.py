from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from service.outlines import contours, mask_on_frame
from service.rendering import on_frame
from service.types import Region


def area(line: list[tuple[float, float]]) -> float:
    """Shoelace formula."""
    x, y = np.array(line).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def disc(side: int, radius: float, centre: tuple[float, float]) -> np.ndarray:
    """Falls from 1 to 0 across the edge, 0.5 on it."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(columns - centre[0], rows - centre[1])
    return np.clip(0.5 + (radius - distance) / 2, 0, 1).astype(np.float32)


def test_a_disc_has_its_area_and_lies_where_it_is_in_the_source():
    region = Region(-20.0, 40.0, 320.0, 320.0)  # five pixels a cell, and it begins left of the image
    found = disc(64, 12, (40.0, 20.0))
    (line,) = contours(found, region, (400, 400), 0.5)
    x, y = np.array(line).T
    assert (x.mean(), y.mean()) == pytest.approx((-20 + 40 * 5, 40 + 20 * 5), abs=0.5)
    assert area(line) == pytest.approx(np.pi * 60**2, rel=0.01)
    assert mask_on_frame(found, region, (400, 400), 0.5).sum() == pytest.approx(np.pi * 60**2, rel=0.01)


def test_a_ring_is_two_lines_and_what_touches_the_border_is_closed():
    ring = disc(64, 20, (32, 32)) - disc(64, 8, (32, 32))
    lines = contours(ring, Region(0, 0, 64, 64), (64, 64), 0.5)
    assert [round(area(line) / np.pi) for line in lines] == pytest.approx([400, 64], rel=0.05)
    whole = contours(np.ones((8, 8), np.float32), Region(0, 0, 64, 64), (64, 64), 0.5)
    assert len(whole) == 1
    assert area(whole[0]) == pytest.approx(64 * 64, rel=0.05)
    assert contours(np.zeros((8, 8), np.float32), Region(0, 0, 64, 64), (64, 64), 0.5) == []


@settings(max_examples=60, deadline=None)
@example(np.full((12, 12), 0.5, np.float32), 0.5)
@given(arrays(np.float32, (12, 12), elements=st.floats(0, 1, width=32)), st.floats(0.05, 0.95))
def test_the_lines_enclose_the_mask(probabilities, threshold):
    # a plateau at the threshold itself has no line: rounding alone decides where it ends
    assume((np.abs(probabilities - threshold) < 1e-6).mean() < 0.02)
    region, shape = Region(3.0, -6.0, 96.0, 96.0), (80, 90)
    lines = contours(probabilities, region, shape, threshold)
    filled = np.zeros(shape, np.bool_)
    for line in lines:
        points = np.array(line)[:, ::-1] - 0.5
        assert (points >= -0.5).all()
        assert (points <= np.array(shape) - 0.5).all()
        if len(points) > 2:
            filled ^= polygon2mask(shape, points)
    mask = mask_on_frame(probabilities, region, shape, threshold)
    differing = on_frame(probabilities, region, shape)[filled != mask]
    # only where the line passes within a rounding of a pixel's centre, which may be a whole column of them
    assert np.abs(differing - threshold).max(initial=0) < 0.01
    assert len(differing) < 0.025 * mask.size
