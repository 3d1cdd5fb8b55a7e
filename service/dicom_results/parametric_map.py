"""The saliency as a Parametric Map: float values in the source's frame of reference (PS3.3 A.75)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from service.dicom_results.concepts import NO_UNITS, quantity_of
from service.dicom_results.instance import RESEARCH, Making, arguments, finish
from service.dicom_results.palette import put_palette


def make_parametric_map(making: Making) -> Dataset:
    """The map, one frame for each slice.

    Values are those of the answer, unscaled, in logits: the rescaling is the identity, the window shows the positive
    evidence up to the series' largest value, and the palette is the one of the overlays.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    answer = making.answer
    values = np.ascontiguousarray(answer.saliency, np.float32)
    peak = peak_of(making)
    mapping = RealWorldValueMapping(
        lut_label=answer.method[:16],
        lut_explanation=f"Evidence for {making.target} in logits"[:64],
        unit=NO_UNITS,
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity_of(answer.method),
    )
    window = VOILUTTransformation(window_center=peak / 2, window_width=peak, voi_lut_function="LINEAR_EXACT")
    ds = ParametricMap(
        source_images=making.source.stand_ins,
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label="SALIENCY",
        content_description=RESEARCH[:64],
        **arguments(making, "parametric_map"),
    )
    put_palette(ds, 0.0, peak, by_range=making.options.color_range)
    return finish(ds, making, f"AI research: evidence for {making.target}, {answer.method}")


def peak_of(making: Making) -> float:
    """The largest positive value of the series' map, or 1 where nothing is positive."""
    peak = float(making.answer.saliency.max())
    return peak if peak > 0 else 1.0
