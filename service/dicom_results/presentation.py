"""How source and map belong on one screen: Advanced Blending Presentation State (PS3.3 A.33.7, C.11.33)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from service.dicom_results.instance import RESEARCH, Making, arguments, finish
from service.dicom_results.palette import greys, inferno
from service.dicom_results.parametric_map import peak_of
from service.dicom_results.references import instance_item
from service.dicom_results.source import decimals
from service.images.grading import Grading, read_grading
from service.series.slices import Slice

if TYPE_CHECKING:
    from highdicom import ModalityLUTTransformation
    from highdicom.pr import AdvancedBlending, SoftcopyVOILUTTransformation


def make_presentation(making: Making, parametric_map: Dataset) -> Dataset:
    """The source in grey below the map in the colours of the overlays.

    Both must lie in one frame of reference. The source has the median window of its slices, or one that spans what its
    pixels hold. The images are also listed outside of the blending: dciodvfy looks for references there alone.
    """
    from highdicom.pr import AdvancedBlendingPresentationState, BlendingDisplay, BlendingDisplayInput

    below = [_in_same_frame(ds, parametric_map) for ds in making.source.stand_ins]
    ds = AdvancedBlendingPresentationState(
        referenced_images=[*below, parametric_map],
        blending=[_source(making, below), _map(making, parametric_map)],
        blending_display=[
            BlendingDisplay(
                "FOREGROUND",
                [BlendingDisplayInput(2), BlendingDisplayInput(1)],
                relative_opacity=making.options.opacity,
            )
        ],
        content_label="EVIDENCE",
        content_description=RESEARCH[:64],
        **arguments(making, "presentation"),
    )
    ds.ReferencedImageSequence = [
        instance_item(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in (*below, parametric_map)
    ]
    return finish(ds, making, f"AI research: evidence for {making.target} over the source")


def _in_same_frame(stand_in: Dataset, parametric_map: Dataset) -> Dataset:
    ds = Dataset()
    ds.update(stand_in)
    ds.FrameOfReferenceUID = parametric_map.FrameOfReferenceUID
    return ds


def _source(making: Making, below: list[Dataset]) -> AdvancedBlending:
    from highdicom.pr import AdvancedBlending

    first = below[0]
    if first.SamplesPerPixel > 1:
        return AdvancedBlending(below, 1)
    slices = making.answer.series.slices
    gradings = [read_grading(one.header, one.number - 1) for one in slices]
    return AdvancedBlending(
        below,
        1,
        modality_lut_transformation=_rescale(gradings),
        voi_lut_transformations=_windows(gradings, slices),
        palette_color_lut_transformation=greys(inverse=gradings[0].inverted),
    )


def _map(making: Making, parametric_map: Dataset) -> AdvancedBlending:
    from highdicom.pr import AdvancedBlending, SoftcopyVOILUTTransformation

    peak = peak_of(making)
    window = SoftcopyVOILUTTransformation(peak / 2, peak, voi_lut_function="LINEAR_EXACT")
    item = AdvancedBlending(
        [parametric_map], 2, voi_lut_transformations=[window], palette_color_lut_transformation=inferno()
    )
    value, threshold = Dataset(), Dataset()
    value.ThresholdValue = 0.0
    threshold.ThresholdType, threshold.ThresholdValueSequence = "GREATER_THAN", [value]
    item.ThresholdSequence = [threshold]  # where nothing is positive, the source stays as bright as it is
    return item


def _rescale(gradings: list[Grading]) -> ModalityLUTTransformation | None:
    """The rescaling of all slices, None where it is none, or differs."""
    from highdicom import ModalityLUTTransformation

    found = {grading.rescale for grading in gradings}
    rescale = found.pop()
    if found or rescale is None:
        return None
    slope, intercept = map(float, decimals(rescale))
    return ModalityLUTTransformation(intercept, slope, rescale_type="US")


def _windows(gradings: list[Grading], slices: tuple[Slice, ...]) -> list[SoftcopyVOILUTTransformation] | None:
    """One window for all slices, in the unit after rescaling; None where lookup tables take its place."""
    from highdicom.pr import SoftcopyVOILUTTransformation

    displays = [grading.display for grading in gradings if grading.display]
    if any(grading.modality for grading in gradings) or any(display.table for display in displays):
        return None
    found = [(display.window.centre, display.window.width) for display in displays if display.window]
    centre, width = np.median(found, axis=0) if found else _span(gradings[0], slices)
    centre, width = map(float, decimals((centre, max(width, 1.0))))
    return [SoftcopyVOILUTTransformation(centre, width)]


def _span(grading: Grading, slices: tuple[Slice, ...]) -> tuple[float, float]:
    """Centre and width from percentile 0.5 to 99.5 of pixels that no window was applied to."""
    if slices[0].frame.pixels.dtype == np.uint8:
        return 127.5, 255.0
    shown = [f.pixels.ravel() if f.padding is None else f.pixels[~f.padding] for f in (one.frame for one in slices)]
    low, high = np.percentile(np.concatenate(shown), (0.5, 99.5))
    if grading.inverted:  # decoded as negative values
        low, high = -high, -low
    return float(low + high) / 2, float(high - low)
