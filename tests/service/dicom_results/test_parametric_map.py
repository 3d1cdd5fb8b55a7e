from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
import pydicom
import pytest
from highdicom import get_volume_from_series
from highdicom.pm import ParametricMap
from pydicom.dataset import Dataset

from service.dicom_results.options import Options
from service.dicom_results.results import make_results
from tests.dicom_modules import Geometry
from tests.dicom_writers import classic_mr, saved
from tests.service.dicom_results.answers import SOURCES, answer, answer_for, images

OBLIQUE = Geometry((-80.0, -60.0, 12.5), (0.8, 0.6, 0.0, -0.36, 0.48, 0.8), spacing=(0.9, 0.7), gap=4.4)
PLACED = [source for source in SOURCES if not source.startswith("nowhere")]


def map_of(source: str, options: Options | None = None) -> Dataset:
    (ds,) = make_results(answer(source), ["parametric_map"], options).objects
    return pydicom.dcmread(BytesIO(saved(ds)))


@pytest.mark.parametrize("source", PLACED)
def test_pixels_are_the_answer_s_saliency_in_the_slices_order(source: str) -> None:
    one, ds = answer(source), map_of(source)
    pixels = ds.pixel_array.reshape(one.saliency.shape)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, one.saliency)


@pytest.mark.parametrize("source", PLACED)
def test_highdicom_reads_logits_in_real_world_values(source: str) -> None:
    read = ParametricMap.from_dataset(map_of(source))
    values = read.get_frames(apply_real_world_transform=True, apply_palette_color_lut=False, apply_icc_profile=False)
    assert np.allclose(values, answer(source).saliency)


@pytest.mark.parametrize("source", PLACED)
def test_every_frame_lies_where_its_slice_lies_and_names_it(source: str) -> None:
    ds = map_of(source)
    shared = ds.SharedFunctionalGroupsSequence[0]
    for frame, one in zip(ds.PerFrameFunctionalGroupsSequence, answer(source).series.slices, strict=True):

        def group(keyword: str, frame: Dataset = frame) -> Dataset:
            return (frame.get(keyword) or shared.get(keyword))[0]

        assert np.allclose(group("PlanePositionSequence").ImagePositionPatient, one.position)
        assert np.allclose(group("PlaneOrientationSequence").ImageOrientationPatient, one.orientation)
        assert np.allclose(group("PixelMeasuresSequence").PixelSpacing, one.spacing)
        assert float(group("PixelMeasuresSequence").SliceThickness) == one.thickness
        (source_image,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source_image.ReferencedSOPInstanceUID == one.header.SOPInstanceUID
        assert source_image.ReferencedSOPClassUID == one.header.SOPClassUID
        assert source_image.get("ReferencedFrameNumber") == (one.number if "NumberOfFrames" in one.header else None)
    assert ds.FrameOfReferenceUID == answer(source).series.slices[0].header.FrameOfReferenceUID


def test_frames_are_ordered_in_a_stack_where_places_repeat() -> None:
    ds = map_of("repeated")
    contents = [frame.FrameContentSequence[0] for frame in ds.PerFrameFunctionalGroupsSequence]
    assert [content.InStackPositionNumber for content in contents] == [1, 2, 3, 4]
    assert [content.DimensionIndexValues for content in contents] == [1, 2, 3, 4]


def test_the_map_is_the_source_s_volume() -> None:
    source = classic_mr(images(), "oblique", geometry=OBLIQUE)
    (ds,) = make_results(answer_for(source), ["parametric_map"]).objects
    mapped = ParametricMap.from_dataset(ds).get_volume_geometry()
    assert mapped is not None
    expected = get_volume_from_series(source)
    assert mapped.spatial_shape == expected.spatial_shape
    corners = np.array([[k, i, j] for k in (0, 3) for i in (0, 39) for j in (0, 31)])
    found, wanted = (volume.map_indices_to_reference(corners).round(3) + 0 for volume in (mapped, expected))
    assert sorted(map(tuple, found)) == sorted(map(tuple, wanted))  # either may count slices from the other end
    assert ds.FrameOfReferenceUID == source[0].FrameOfReferenceUID


def test_quantity_unit_window_and_palette() -> None:
    one, ds = answer("classic"), map_of("classic")
    shared = ds.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == (
        "Gradient-weighted class activation"
    )
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == pytest.approx(float(one.saliency.max()))
    window = shared.FrameVOILUTSequence[0]
    assert float(window.WindowCenter + window.WindowWidth / 2) == pytest.approx(float(one.saliency.max()), rel=1e-5)
    red = np.frombuffer(ds.RedPaletteColorLookupTableData, np.uint16)
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, np.newaxis], cv2.COLORMAP_INFERNO)[:, 0, 2]
    assert np.array_equal(red, ramp.astype(np.uint16) * 257)
    assert ds.ContentQualification == "RESEARCH"


def test_the_palette_can_be_bound_to_the_values() -> None:
    ds = map_of("classic", Options(color_range=True))
    (span,) = ds.SharedFunctionalGroupsSequence[0].StoredValueColorRangeSequence
    assert ds.PixelPresentation == "COLOR_RANGE"
    assert span.MaximumStoredValueMapped == pytest.approx(float(answer("classic").saliency.max()))
    assert "ICCProfile" in ds
