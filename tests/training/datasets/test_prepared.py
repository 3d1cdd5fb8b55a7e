from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.types import PreprocessingSpec
from training.datasets.prepared import Prepared, prepare_records
from training.datasets.record import DatasetError, Image, Record

SPEC = PreprocessingSpec(field_of_view="frame", size=32, margin=0.0, window=(0.0, 100.0))


def image(level: int) -> Image:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = level
    return pixels


def mask() -> np.ndarray:
    inside = np.zeros((64, 64), np.uint8)
    inside[16:48, 32:64] = 1
    return inside


def records(load: Callable[[int], Image] = image) -> list[Record]:
    return [
        Record("one", "b", "p1", lambda: load(100), mask),
        Record("two", "a", "p2", lambda: load(200)),
    ]


def unreadable(_: int) -> Image:
    pytest.fail("the image was read again")


def test_images_masks_and_labels_are_in_the_records_order(tmp_path: Path) -> None:
    prepared = prepare_records(records(), ("a", "b"), SPEC, tmp_path)
    assert len(prepared) == 2
    assert prepared.images.shape == prepared.masks.shape == (2, 32, 32)
    assert prepared.images.dtype == prepared.masks.dtype == np.uint8
    assert prepared.labels.tolist() == [1, 0]
    assert prepared.has_mask.tolist() == [True, False]
    assert (prepared.ids, prepared.groups) == (("one", "two"), ("p1", "p2"))
    expected = np.zeros((32, 32), np.uint8)
    expected[8:24, 16:] = 255
    np.testing.assert_array_equal(prepared.masks[0], expected)
    assert not prepared.masks[1].any()
    assert set(np.unique(prepared.images[1])) == {0, 255}


def test_a_second_call_reads_the_cache(tmp_path: Path) -> None:
    first = prepare_records(records(), ("a", "b"), SPEC, tmp_path)
    again = prepare_records(records(unreadable), ("a", "b"), SPEC, tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    assert len(list(tmp_path.iterdir())) == 1


def test_another_preprocessing_has_a_cache_of_its_own(tmp_path: Path) -> None:
    prepare_records(records(), ("a", "b"), SPEC, tmp_path)
    larger = prepare_records(records(), ("a", "b"), SPEC.model_copy(update={"size": 64}), tmp_path)
    assert larger.images.shape == (2, 64, 64)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_half_written_cache_is_not_used(tmp_path: Path) -> None:
    def broken(_: int) -> Image:
        raise DatasetError("unreadable")

    with pytest.raises(DatasetError, match="unreadable"):
        prepare_records(records(broken), ("a", "b"), SPEC, tmp_path)
    assert prepare_records(records(), ("a", "b"), SPEC, tmp_path).images.any()


def test_labels_that_the_model_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels \['b'\] are not among"):
        prepare_records(records(), ("a",), SPEC, tmp_path)


def test_what_is_known_of_the_images_comes_along(tmp_path: Path) -> None:
    known = replace(
        records()[0], source="x", weighting="T1", plane="axial", level=0.5, skull_stripped=True, typed=False
    )
    prepared = prepare_records([known, records()[1]], ("a", "b"), SPEC, tmp_path)
    assert (prepared.sources, prepared.weightings, prepared.planes) == (("x", ""), ("T1", ""), ("axial", ""))
    np.testing.assert_array_equal(prepared.levels, [0.5, np.nan])
    assert prepared.skull_stripped == (True, None)
    assert prepared.typed.tolist() == [False, True]
    twice = prepared.joined(prepared)
    assert len(twice) == 4
    assert twice.ids == ("one", "two", "one", "two")
    assert twice.typed.tolist() == [False, True] * 2
    np.testing.assert_array_equal(twice.images[2:], prepared.images)
    np.testing.assert_array_equal(twice.levels, [0.5, np.nan] * 2)


def test_what_is_not_given_is_unknown_for_every_image() -> None:
    bare = Prepared(np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8), *([np.zeros(2, int)] * 2), (), ())
    assert bare.sources == ("", "")
    assert np.isnan(bare.levels).tolist() == [True, True]
    assert bare.typed.all()
    with pytest.raises(ValueError, match="planes holds 1 values for 2 images"):
        replace(bare, planes=("axial",))
