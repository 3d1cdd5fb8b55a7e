from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidParameter
from service.rendering import display_grey, on_frame, overlay_file
from service.types import Attribution, Frame, Region, Target

FULL = Region(0, 0, 400, 400)
GREY = Frame("a.png", np.full((400, 400), 90, np.uint8))


def drawn(values: np.ndarray, frame: Frame = GREY, region: Region = FULL) -> np.ndarray:
    attribution = Attribution("gradcam", Target("glioma", 0), values.astype(np.float32), exact=True)
    with Image.open(BytesIO(overlay_file(frame, region, attribution))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def colour(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture[:400, :400], axis=2)


def test_colour_lies_where_the_evidence_is_positive_and_nowhere_else():
    values = -np.ones((4, 4))
    values[0, 3] = 5
    spread = colour(drawn(values))
    assert spread[50, 350] > 40
    assert spread[250:, :].max() == 0
    assert spread[:, :150].max() == 0


def test_without_positive_evidence_the_picture_stays_grey():
    picture = drawn(-np.ones((4, 4)))
    assert colour(picture).max() == 0
    np.testing.assert_array_equal(picture[:400, :400], 90)


def test_a_footer_is_added_below_and_the_source_keeps_its_size():
    picture = drawn(np.ones((4, 4)))
    assert picture.shape[1] == 400
    assert picture.shape[0] > 400
    assert picture[400:].max() > 150


def test_a_small_frame_is_enlarged_so_that_the_footer_can_be_read():
    picture = drawn(np.ones((4, 4)), Frame("a.png", np.full((90, 90), 50, np.uint8)), Region(0, 0, 90, 90))
    assert picture.shape[1] >= 360


def test_a_frame_too_wide_for_webp_is_refused_and_drawn_as_another_picture():
    wide = Frame("a.png", np.full((256, 2**14), 90, np.uint8))
    attribution = Attribution("gradcam", Target("glioma", 0), np.ones((4, 4), np.float32), exact=True)
    region = Region(0, 0, 2**14, 256)
    with pytest.raises(InvalidParameter, match="16383 pixels a side"):
        overlay_file(wide, region, attribution, "webp")
    with Image.open(BytesIO(overlay_file(wide, region, attribution, "jpeg"))) as picture:
        assert picture.width == 2**14


def test_the_scale_of_a_map_does_not_change_its_picture_but_the_footer_says_it():
    values = np.arange(16.0).reshape(4, 4)
    one, thousand = drawn(values), drawn(values * 1000)
    np.testing.assert_array_equal(one[:400], thousand[:400])
    assert (one[400:] != thousand[400:]).any()


def test_cells_land_on_their_part_of_the_region():
    values = np.zeros((2, 2), np.float32)
    values[1, 0] = 1
    mapped = on_frame(values, Region(-10, 20, 40, 40), (100, 100))
    assert mapped[50, 0] == pytest.approx(1, abs=0.05)
    assert mapped[0:20].max() == 0
    assert mapped[:, 30:].max() == 0
    assert mapped[60:].max() == 0


def test_wide_ranges_are_windowed_for_display():
    pixels = np.linspace(-1000, 3000, 10_000, dtype=np.float32).reshape(100, 100)
    grey = display_grey(Frame("a", pixels))
    assert (grey.min(), grey.max()) == (0, 255)
    assert grey.dtype == np.uint8
