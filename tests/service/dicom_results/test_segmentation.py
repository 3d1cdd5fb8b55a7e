from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from highdicom.seg import Segmentation, segread
from pydicom.uid import SegmentationStorage

from service.dicom_results.options import Options
from service.dicom_results.results import make_results
from tests.dicom_writers import saved
from tests.service.dicom_results.answers import SOURCES, answer


def segmentation_of(source: str, share: float = 0.5) -> Segmentation:
    (ds,) = make_results(answer(source), ["segmentation"], Options(segment_from=share)).objects
    assert ds.SOPClassUID == SegmentationStorage
    return segread(BytesIO(saved(ds)))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_frames_hold_what_reaches_the_share_of_the_peak(source: str, share: float) -> None:
    one, read = answer(source), segmentation_of(source, share)
    masks = one.saliency >= share * one.saliency.max()
    kept = [index for index, mask in enumerate(masks) if mask.any()]
    pixels = read.pixel_array.reshape(len(kept), *masks.shape[1:])
    assert np.array_equal(pixels, masks[kept])
    for frame, index in zip(read.PerFrameFunctionalGroupsSequence, kept, strict=True):
        (source_image,) = frame.DerivationImageSequence[0].SourceImageSequence
        slice_ = one.series.slices[index]
        assert source_image.ReferencedSOPInstanceUID == slice_.header.SOPInstanceUID
        if "NumberOfFrames" in slice_.header:
            assert source_image.ReferencedFrameNumber == slice_.number
        if slice_.position is not None:
            assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, slice_.position)


def test_a_high_share_leaves_slices_out() -> None:
    assert segmentation_of("classic", 0.9).NumberOfFrames < len(answer("classic").slices)


def test_the_segment_is_model_evidence_and_no_lesion() -> None:
    (segment,) = segmentation_of("classic").SegmentSequence
    assert segment.SegmentLabel == "Model evidence for Glioma, not a lesion"
    assert segment.segmented_property_category.meaning == "Spatial and Relational Concept"
    assert segment.segmented_property_type.meaning == "Gradient-weighted class activation"
    assert segment.algorithm_type.value == "AUTOMATIC"
    assert segment.algorithm_identification.name == "brain-mri-resnet50"
    assert segment.algorithm_identification.version == "1.0.0"
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "Brain"


def test_the_segment_names_the_eye() -> None:
    (segment,) = segmentation_of("left eye").SegmentSequence
    assert segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Left"


def test_without_a_frame_of_reference_frames_have_no_place() -> None:
    read = segmentation_of("nowhere")
    assert "FrameOfReferenceUID" not in read
    assert not any("PlanePositionSequence" in frame for frame in read.PerFrameFunctionalGroupsSequence)
    assert "PixelMeasuresSequence" not in read.SharedFunctionalGroupsSequence[0]
