from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from highdicom.image import imread

from service.dicom_results.results import make_results
from service.dicom_results.secondary_capture import patient_orientation
from service.rendering import overlay
from tests.dicom_writers import classic_mr, saved
from tests.service.dicom_results.answers import SOURCES, answer, answer_for, images


@pytest.mark.parametrize("source", SOURCES)
def test_one_overlay_for_each_slice_on_one_scale(source: str) -> None:
    one = answer(source)
    captures = make_results(one, ["secondary_capture"]).objects
    assert [ds.InstanceNumber for ds in captures] == list(range(1, len(one.slices) + 1))
    peak = float(one.saliency.max())
    for ds, slice_, predicted in zip(captures, one.series.slices, one.slices, strict=True):
        wanted = overlay(slice_.frame, predicted.region, predicted.saliency, peak)[..., ::-1]
        assert np.array_equal(imread(BytesIO(saved(ds))).get_frame(1), wanted)
        (reference,) = ds.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == slice_.header.SOPInstanceUID
        assert reference.get("ReferencedFrameNumber") == (slice_.number if "NumberOfFrames" in slice_.header else None)


def test_the_notice_is_burned_in_but_no_name() -> None:
    ds = make_results(answer("classic"), ["secondary_capture"]).objects[0]
    footer = ds.pixel_array[-44:]
    assert (footer.max(axis=2) > 128).sum() > 200
    assert ds.BurnedInAnnotation == "NO"
    assert "PixelSpacing" not in ds
    assert "Research use only" in ds.ImageComments


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ("L", "P")),
        ((-1, 0, 0, 0, 0, -1), ("R", "F")),
        ((0, 0.9, 0.436, 0, -0.436, 0.9), ("P", "H")),
        ((0, -1, 0, 1, 0, 0), ("A", "L")),
        (None, None),
    ],
)
def test_letters_say_where_rows_and_columns_point(
    orientation: tuple[float, ...] | None, letters: tuple[str, str] | None
) -> None:
    assert patient_orientation(orientation) == (None if letters is None else list(letters))


def test_odd_sizes_are_padded_to_even_length() -> None:
    (ds,) = make_results(answer_for(classic_mr(images(1, 401, 361), "odd")), ["secondary_capture"]).objects
    assert (ds.Rows * ds.Columns * 3) % 2 == 1
    again = imread(BytesIO(saved(ds)))
    assert again.get_frame(1).shape == (ds.Rows, ds.Columns, 3)
    assert len(again.PixelData) % 2 == 0


def test_captures_share_nothing_that_can_be_changed() -> None:
    first, second = make_results(answer("enhanced, a frame left out"), ["secondary_capture"]).objects[:2]
    first.PatientName = "Somebody^Else"
    first.ContributingEquipmentSequence[0].Manufacturer = "Other"
    assert second.PatientName == "Subject^Synthetic"
    assert second.ContributingEquipmentSequence[0].Manufacturer == "Synthetic"
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
