from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from service import errors
from service.series.geometry import same_orientation
from service.series.reading import LeftOut, Series, read_series
from tests.dicom_writers import (
    BRAIN,
    Geometry,
    classic_mr,
    encoded,
    enhanced_mr,
    in_photometric,
    item,
    make_uid,
    ophthalmic_tomography,
    saved,
)

IMAGES = [np.add.outer(np.arange(40), np.arange(48) * 2).astype(np.uint8) + 10 * index for index in range(4)]
BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EIGHT_BITS = (128, 256)  # the window that changes nothing
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def read(series: Sequence[Dataset]) -> Series:
    (found,) = read_series(map(saved, series))
    return found


def shown(series: Series) -> list[int]:
    """Which of IMAGES the slices show, by their first pixel."""
    return [round(float(one.frame.pixels[0, 0])) // 10 for one in series.slices]


def reasons(series: Series) -> list[str]:
    return [one.reason for one in series.left_out]


def elements(ds: Dataset) -> Iterator[Any]:
    for element in ds:
        yield element.value
        if element.VR == "SQ":
            for part in element.value:
                yield from elements(part)


# Order


@settings(BOUNDED, max_examples=24)
@given(order=st.permutations(range(4)), numbers=st.permutations(range(1, 5)))
def test_geometry_orders_slices_not_files_and_not_instance_numbers(order: list[int], numbers: list[int]) -> None:
    series = classic_mr(IMAGES)
    for ds, number in zip(series, numbers, strict=True):
        ds.InstanceNumber = number
    found = read([series[index] for index in order])
    assert shown(found) == [0, 1, 2, 3]
    assert [one.position for one in found.slices] == [tuple(BRAIN.position(index)) for index in range(4)]
    assert (found.left_out, found.notes) == ((), ())


def test_the_order_follows_the_normal_of_oblique_planes() -> None:
    """Row direction times column direction, although the patient's z falls along it."""
    turned = Geometry(orientation=(0.8, 0.0, -0.6, 0.0, -1.0, 0.0))
    found = read(classic_mr(IMAGES, geometry=turned)[::-1])
    assert shown(found) == [0, 1, 2, 3]
    heights = [one.position[2] for one in found.slices if one.position]
    assert heights == sorted(heights, reverse=True)


def test_slices_at_one_place_are_ordered_by_time() -> None:
    series = classic_mr(IMAGES)
    for index, ds in enumerate(series):
        ds.ImagePositionPatient = BRAIN.position(index % 2)
        ds.TemporalPositionIdentifier = 2 - index // 2
    found = read(series)
    assert shown(found) == [2, 0, 3, 1]
    assert found.notes == ("several slices lie at the same place",)


def test_a_missing_slice_is_noted() -> None:
    series = classic_mr(IMAGES)
    del series[1]
    assert read(series).notes == ("the distances between slices differ; slices may be missing",)


@pytest.mark.parametrize("change", [{"ImagePositionPatient": None}, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}])
def test_without_geometry_instance_numbers_order_the_slices(change: dict[str, Any]) -> None:
    series = classic_mr(IMAGES, **change)
    for ds, number in zip(series, (7, 10, 8, 9), strict=True):
        ds.InstanceNumber = number
    found = read(series)
    assert shown(found) == [0, 2, 3, 1]
    assert found.notes == ("slices without a usable position or orientation; ordered by instance number",)


def test_without_geometry_and_numbers_the_order_means_nothing() -> None:
    found = read(classic_mr(IMAGES, ImagePositionPatient=None, InstanceNumber=None))
    assert sorted(shown(found)) == [0, 1, 2, 3]
    assert found.notes == ("neither geometry nor instance numbers; the order of the slices means nothing",)


def test_a_radial_scan_has_no_common_plane_and_keeps_its_order() -> None:
    series = classic_mr(IMAGES)
    for index, ds in enumerate(series):
        angle = np.pi * index / 4
        ds.ImageOrientationPatient = [round(np.cos(angle), 6), round(np.sin(angle), 6), 0, 0, 0, -1]
    found = read(series[::-1])
    assert shown(found) == [0, 1, 2, 3]
    assert found.left_out == ()
    assert found.notes == ("the slices have no common orientation; ordered by instance number",)


def test_no_orientation_has_a_majority_of_exactly_half() -> None:
    axial = BRAIN.orientation
    assert same_orientation([axial, CORONAL]) is None
    assert same_orientation([axial, CORONAL, axial]) == [True, False, True]
    assert same_orientation([]) is None


# What is left out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "Image Type (0008,0008) says a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCOUT"]}, "Image Type (0008,0008) says a localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "Image Type (0008,0008) says a mosaic of slices"),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "M", "T1 MAP"]},
            "Image Type (0008,0008) says a map of computed values",
        ),
        (
            {"ComplexImageComponent": "PHASE"},
            "Complex Image Component (0008,9208) says a phase, real or imaginary image",
        ),
        ({"ImageOrientationPatient": list(CORONAL)}, "of another orientation than most of the series"),
        ({"FrameOfReferenceUID": "1.2.3"}, "in another frame of reference than most of the series"),
        ({"Modality": "SR", "PixelData": None, "Rows": None}, "the DICOM instance holds no pixel data"),
        ({"PhotometricInterpretation": "HSV"}, "the DICOM photometric interpretation is not supported"),
        ({"Rows": 400}, "the pixel data are truncated: they end before the first frame does"),
        ({"Rows": 60000, "Columns": 60000}, "a frame has more than 67108864 pixels"),
    ],
)
def test_one_that_does_not_belong_is_left_out_alone(change: dict[str, Any], reason: str) -> None:
    series = classic_mr(IMAGES)
    (series[1],) = classic_mr(IMAGES[1:2], SOPInstanceUID="1.2.99", **change)
    series[1].file_meta.MediaStorageSOPInstanceUID = "1.2.99"
    found = read(series)
    assert shown(found) == [0, 2, 3]
    (left,) = found.left_out
    assert (left.sop_instance, left.reason) == ("1.2.99", reason)
    assert left.number in (None, 1)


def test_an_image_of_another_size_is_left_out() -> None:
    series = classic_mr([IMAGES[0], IMAGES[1][:32], *IMAGES[2:]])
    assert shown(read(series)) == [0, 2, 3]
    assert reasons(read(series)) == ["of another size than most of the series"]


def test_the_same_instance_twice_counts_once() -> None:
    series = classic_mr(IMAGES)
    found = read([*series, series[2]])
    assert shown(found) == [0, 1, 2, 3]
    assert found.left_out == (
        LeftOut(series[2].SOPInstanceUID, None, "a duplicate: an instance with the same UID came before"),
    )


def test_a_damaged_copy_does_not_displace_a_sound_one() -> None:
    series = classic_mr(IMAGES)
    (found,) = read_series([saved(series[0])[:-99], *map(saved, series)])
    assert shown(found) == [0, 1, 2, 3]
    assert len(found.left_out) == 1


def test_the_same_image_at_the_same_place_counts_once() -> None:
    series, (again,) = classic_mr(IMAGES), classic_mr(IMAGES[:1], SOPInstanceUID="1.2.99", InstanceNumber=9)
    found = read([again, *series])
    assert shown(found) == [0, 1, 2, 3]
    assert found.left_out == (LeftOut("1.2.99", 1, "a duplicate: the same pixels at the same place"),)


def test_the_same_pixels_at_other_places_stay() -> None:
    assert len(read(classic_mr(IMAGES[:1] * 4)).slices) == 4
    assert len(read(classic_mr(IMAGES[:1] * 4, ImagePositionPatient=None)).slices) == 4


def test_a_series_of_nothing_but_localisers_has_no_slices() -> None:
    found = read(classic_mr(IMAGES, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert found.slices == ()
    assert (found.modality, found.body_part) == ("MR", "BRAIN")
    assert reasons(found) == ["Image Type (0008,0008) says a localiser"] * 4


def test_series_are_told_apart_and_what_cannot_be_parsed_goes_where_it_can_belong() -> None:
    one, other = classic_mr(IMAGES, "one"), classic_mr(IMAGES[:2], "other")
    (found,) = read_series([b"not DICOM", *map(saved, one)])
    assert reasons(found) == ["not a DICOM file"]
    lost, *both = read_series([b"not DICOM", *map(saved, [*one, *other])])
    assert (lost.series, lost.slices, reasons(lost)) == ("", (), ["not a DICOM file"])
    assert {found.series: len(found.slices) for found in both} == {
        make_uid("one", "series"): 4,
        make_uid("other", "series"): 2,
    }
    assert read_series([]) == []


def test_instances_without_uids_are_still_a_series() -> None:
    found = read(classic_mr(IMAGES, StudyInstanceUID=None, SeriesInstanceUID=None))
    assert shown(found) == [0, 1, 2, 3]
    assert "no usable Study or Series Instance UID" in found.notes


def test_limits_hold_for_all_instances_together(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [saved(ds) for ds in classic_mr(IMAGES)]
    monkeypatch.setattr("service.series.reading.MAX_SLICES", 4)
    assert len(read_series(files)[0].slices) == 4
    monkeypatch.setattr("service.series.reading.MAX_SLICES", 3)
    with pytest.raises(errors.TooManyImages):
        read_series(files)
    monkeypatch.setattr("service.series.reading.MAX_SLICES", 4)
    monkeypatch.setattr("service.series.reading.MAX_PIXELS", 4 * 40 * 48 - 1)
    with pytest.raises(errors.TooManyImages):
        read_series(files)


# Enhanced multi-frame


def test_frames_of_enhanced_mr_have_their_places_from_functional_groups() -> None:
    ds = enhanced_mr(IMAGES, window=EIGHT_BITS)
    groups = ds.PerFrameFunctionalGroupsSequence
    groups[0].PlanePositionSequence, groups[3].PlanePositionSequence = (
        groups[3].PlanePositionSequence,
        groups[0].PlanePositionSequence,
    )
    found = read([ds])
    assert shown(found) == [3, 1, 2, 0]
    assert [one.number for one in found.slices] == [4, 2, 3, 1]
    assert [one.frame.name for one in found.slices] == ["#4", "#2", "#3", "#1"]
    assert {(one.orientation, one.spacing, one.thickness) for one in found.slices} == {
        (BRAIN.orientation, BRAIN.spacing, BRAIN.thickness)
    }
    assert len({id(one.header) for one in found.slices}) == 1
    assert (found.modality, found.body_part, found.sop_class) == ("MR", "BRAIN", uid.EnhancedMRImageStorage)


def test_a_localiser_among_the_frames_is_left_out() -> None:
    ds = enhanced_mr(IMAGES, window=EIGHT_BITS)
    frame_type = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.PerFrameFunctionalGroupsSequence[1].MRImageFrameTypeSequence = [item(FrameType=frame_type)]
    found = read([ds])
    assert shown(found) == [0, 2, 3]
    assert found.left_out == (LeftOut(ds.SOPInstanceUID, 2, "Frame Type (0008,9007) says a localiser"),)


def test_a_series_of_nothing_but_maps_stays_and_says_so() -> None:
    found = read(classic_mr(IMAGES, ImageType=["DERIVED", "PRIMARY", "M", "T1 MAP"]))
    assert len(found.slices) == 4
    assert [what.kind for what in found.contents] == ["map"]


def test_without_positions_the_place_in_the_stack_orders_frames() -> None:
    ds = enhanced_mr(IMAGES, window=EIGHT_BITS)
    for index, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        del group.PlanePositionSequence
        group.FrameContentSequence[0].InStackPositionNumber = 4 - index
    assert shown(read([ds])) == [3, 2, 1, 0]


def test_ophthalmic_tomography() -> None:
    found = read([ophthalmic_tomography(IMAGES, laterality="L")])
    assert shown(found) == [0, 1, 2, 3]
    assert (found.modality, found.body_part, found.laterality) == ("OPT", "RETINA", "L")
    assert found.slices[2].position == (-3.0, 0.0, -1.76)
    assert found.slices[2].spacing == (0.004, 0.012)
    assert found.notes == ()


def test_both_eyes_in_one_series_are_both_sides() -> None:
    one = ophthalmic_tomography(IMAGES[:2], laterality="L")
    other = ophthalmic_tomography(IMAGES[2:], laterality="R", SOPInstanceUID="1.2.9")
    assert read([one, other]).laterality == "B"


def test_fewer_groups_than_frames_are_no_crash() -> None:
    ds = enhanced_mr(IMAGES, window=EIGHT_BITS)
    del ds.PerFrameFunctionalGroupsSequence[2:]
    assert len(read([ds]).slices) == 4


# Encodings


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_every_lossless_transfer_syntax_gives_the_same_series(syntax: uid.UID, dtype: type) -> None:
    images = [image.astype(dtype) * 7 - (400 if dtype is np.int16 else 0) for image in IMAGES]
    found = read([encoded(ds, syntax) for ds in classic_mr(images)])
    for one, image in zip(found.slices, images, strict=True):
        assert np.array_equal(one.frame.pixels, image)


def test_lossy_jpeg_is_close() -> None:
    found = read([encoded(ophthalmic_tomography(IMAGES), uid.JPEGBaseline8Bit)])
    for one, image in zip(found.slices, IMAGES, strict=True):
        assert np.abs(one.frame.pixels.astype(int) - image).max() <= 3


def test_high_throughput_jpeg_2000() -> None:
    """A codestream of the ramp below, written with OpenJPH."""
    content = base64.b64decode(
        "/0//UQApQAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQ"
        "kJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAJcAAf+TwAAlWwUHdADAABLAABKA4gAHdAAiAYd0AMAA"
        "EsAAEwAAAMJ0AJCQAENUAMAAE8AAFUAA8KCnQnUASARB/sAQgey2AMAAFRAABaAA59T09PJ3AKIQQggh/v2AAHv2AAHsugDAACrgABao"
        "AAD5/wKUpSlL6QBu27Zt27b/eGEnv2Se/ZJ79knsvwD/2Q=="
    )
    ramp = np.add.outer(np.arange(32) * 8, np.arange(32)).astype(np.uint16)
    (ds,) = classic_mr([ramp])
    ds.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
    ds.PixelData = encapsulate([content])
    assert np.array_equal(read([ds]).slices[0].frame.pixels, ramp)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL"])
def test_every_photometric_interpretation_shows_the_same(photometric: str) -> None:
    series = [in_photometric(ds, photometric) for ds in classic_mr(IMAGES, bits=8)]
    for one, image in zip(read(series).slices, IMAGES, strict=True):
        pixels = one.frame.pixels.astype(int)
        if photometric == "MONOCHROME1":  # without a window, values are negated
            pixels = pixels + 255
        assert np.abs(pixels - image).max() <= 1


def test_the_window_of_the_header_is_for_people_and_not_for_the_model() -> None:
    images = [image.astype(np.int16) for image in IMAGES]
    frame = read(classic_mr(images, window=(60, 41))).slices[0].frame
    assert (frame.shown()[0, 0], frame.shown()[-1, -1]) == (0, 255)
    assert np.array_equal(frame.pixels, read(classic_mr(images)).slices[0].frame.pixels)


# Wrong tags


def test_headers_hold_no_pixels_and_only_what_can_be_read() -> None:
    (ds,) = classic_mr(IMAGES[:1], PatientWeight="1234567", DeviceSerialNumber="1234567")
    ds.RequestAttributesSequence = [item(ScheduledProcedureStepID="1", CineRate="1234567")]
    content = saved(ds).replace(b"1234567", b"heavy!!")
    (found,) = read_series([content])
    header = found.slices[0].header
    assert "PixelData" not in header
    assert "PatientWeight" not in header
    assert list(header.RequestAttributesSequence[0].keys()) == [0x00400009]
    assert header.DeviceSerialNumber == "heavy!!"
    assert str(header.PatientName) == "Subject^Synthetic"
    assert header.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert found.notes == ("elements of the header that cannot be read are ignored",)
    assert len(list(elements(header))) > 40


@pytest.mark.parametrize(
    ("keyword", "value", "attribute"),
    [
        ("PixelSpacing", [0.5], "spacing"),
        ("PixelSpacing", [0.0, 0.5], "spacing"),
        ("PixelSpacing", [-1.0, 0.5], "spacing"),
        ("SliceThickness", 0.0, "thickness"),
        ("ImagePositionPatient", [1.0, 2.0], "position"),
        ("ImagePositionPatient", [1.0, 2.0, 1e30], "position"),
        ("ImageOrientationPatient", [0.0] * 6, "orientation"),
        ("ImageOrientationPatient", [2.0, 0.0, 0.0, 0.0, 1.0, 0.0], "orientation"),
    ],
)
def test_values_that_make_no_sense_are_none(keyword: str, value: Any, attribute: str) -> None:
    found = read(classic_mr(IMAGES[:1], **{keyword: value}))
    assert getattr(found.slices[0], attribute) is None
    assert found.slices[0].frame.pixels.shape == (40, 48)


@pytest.mark.parametrize(("value", "most"), [(None, "MR"), ("CT", "MR")])
def test_a_modality_that_is_missing_or_another_is_noted(value: Any, most: str) -> None:
    series = classic_mr(IMAGES)
    series[0].Modality = value
    found = read(series)
    assert found.modality == most
    assert found.notes == ("the modality is missing, or not the same for all instances",)


def test_almost_unit_directions_are_made_so() -> None:
    found = read(classic_mr(IMAGES[:1], ImageOrientationPatient=[0.999, 0, 0, 0, 1.001, 0]))
    assert found.slices[0].orientation == (1, 0, 0, 0, 1, 0)


def test_no_value_of_the_header_is_in_reasons_or_notes() -> None:
    word = "SECRET"
    series = classic_mr(
        IMAGES, PatientName=word, PatientID=word, SeriesDescription=word, PixelSpacing=None, InstanceNumber=None
    )
    series[0].ImageType = [word, word, "LOCALIZER"]
    series[1].PhotometricInterpretation = word
    found = read(series)
    assert len(found.left_out) == 2
    assert found.notes
    assert word not in str(found.notes) + str(reasons(found))


# Anything at all


def outcome(contents: Sequence[bytes]) -> None:
    """Series, or an error of the tree; all headers can be read, and texts are texts."""
    try:
        found = read_series(contents)
    except errors.RadiolucentError:
        return
    for series in found:
        assert len({one.frame.pixels.shape for one in series.slices}) <= 1
        for one in series.slices:
            for value in elements(one.header):
                str(value)


def test_pydicoms_own_files_give_series_or_reasons() -> None:
    folder = Path(str(get_testdata_file("MR_small.dcm", download=False))).parent
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 80
    answered = 0
    for path in files:
        (found,) = read_series([path.read_bytes()])
        assert found.slices or found.left_out, path
        answered += bool(found.slices)
    assert answered > 50
    outcome([path.read_bytes() for path in files])


SEEDS = {
    "classic": saved(classic_mr(IMAGES[:1], window=(60, 41))[0]),
    "enhanced": saved(enhanced_mr(IMAGES, window=EIGHT_BITS)),
    "tomography": saved(encoded(ophthalmic_tomography(IMAGES), uid.RLELossless)),
}


@pytest.mark.parametrize("seed", SEEDS)
@BOUNDED
@given(data=st.data())
def test_mutated_headers_give_series_or_reasons(seed: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content) - 1, 4000)))] = data.draw(st.integers(0, 255))
    outcome([bytes(content), SEEDS["classic"]])
