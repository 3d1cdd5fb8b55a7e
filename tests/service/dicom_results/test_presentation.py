from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from service.dicom_results.options import Options
from service.dicom_results.results import make_results
from service.series.answer import SeriesAnswer
from tests.dicom_writers import classic_mr, enhanced_mr
from tests.service.dicom_results.answers import answer, answer_for, images


def presentation(one: SeriesAnswer, options: Options | None = None) -> Dataset:
    return make_results(one, ["presentation"], options).objects[-1]


def window_of(item: Dataset) -> tuple[float, float]:
    (window,) = item.SoftcopyVOILUTSequence
    return float(window.WindowCenter), float(window.WindowWidth)


def test_the_map_lies_over_the_source_in_one_frame_of_reference() -> None:
    parametric_map, ds = make_results(answer("classic"), ["presentation"]).objects
    below, above = ds.AdvancedBlendingSequence
    sources = [one.header.SOPInstanceUID for one in answer("classic").series.slices]
    assert [item.ReferencedSOPInstanceUID for item in below.ReferencedImageSequence] == sources
    assert [item.ReferencedSOPInstanceUID for item in above.ReferencedImageSequence] == [parametric_map.SOPInstanceUID]
    assert above.SeriesInstanceUID == parametric_map.SeriesInstanceUID
    (display,) = ds.BlendingDisplaySequence
    assert [item.BlendingInputNumber for item in display.BlendingDisplayInputSequence] == [2, 1]
    assert (display.BlendingMode, display.RelativeOpacity) == ("FOREGROUND", 0.5)


def test_only_positive_evidence_is_coloured() -> None:
    above = presentation(answer("classic")).AdvancedBlendingSequence[1]
    (threshold,) = above.ThresholdSequence
    assert (threshold.ThresholdType, threshold.ThresholdValueSequence[0].ThresholdValue) == ("GREATER_THAN", 0)
    centre, width = window_of(above)
    assert centre + width / 2 == pytest.approx(float(answer("classic").saliency.max()), rel=1e-5)


def test_opacity_is_chosen() -> None:
    ds = presentation(answer("classic"), Options(opacity=0.25))
    assert ds.BlendingDisplaySequence[0].RelativeOpacity == 0.25


def test_the_source_keeps_its_window_and_its_rescaling() -> None:
    series = classic_mr(images(2), "window", window=(300, 500), RescaleSlope="2", RescaleIntercept="-100")
    series[1].WindowCenter = 340
    below = presentation(answer_for(series)).AdvancedBlendingSequence[0]
    assert window_of(below) == (320, 500)
    assert (below.RescaleSlope, below.RescaleIntercept) == (2, -100)


def test_windows_of_frames_are_found() -> None:
    below = presentation(answer_for([enhanced_mr(images(2), "window", window=(90, 70))])).AdvancedBlendingSequence[0]
    assert window_of(below) == (90, 70)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_without_a_window_the_stored_values_are_spanned(photometric: str) -> None:
    series = classic_mr([image.astype(np.uint16) * 9 for image in images(2)], photometric)
    for ds in series:
        ds.PhotometricInterpretation = photometric
    below = presentation(answer_for(series)).AdvancedBlendingSequence[0]
    centre, width = window_of(below)
    assert centre == pytest.approx(255 * 9 / 2, rel=0.05)
    assert width == pytest.approx(255 * 9, rel=0.05)
    grey = np.frombuffer(below.PaletteColorLookupTableSequence[0].RedPaletteColorLookupTableData, np.uint16)
    assert (grey[0], grey[-1]) == ((65535, 0) if photometric == "MONOCHROME1" else (0, 65535))
