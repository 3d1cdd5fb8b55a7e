"""Where the frames of what is made lie (PS3.3 C.7.6.16.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from service.dicom_results.source import Source, decimals, distances
from service.series.slices import Slice

_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


def place_frames(ds: Dataset, slices: Sequence[Slice], source: Source) -> None:
    """Take the invented places out of a multi-frame object, and put the slices' own in where they have one.

    Frames of slices that form no volume are ordered by their number in a stack instead of their position. Nothing
    happens to other objects. The references of `ds` must still be those to the stand-ins.
    """
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return
    shared = ds.SharedFunctionalGroupsSequence[0]
    for keyword in _GROUPS:
        shared.pop(keyword, None)
    if source.volume:
        gap = float(np.median(np.abs(np.diff(distances(slices))))) if len(slices) > 1 else None
        shared.PlaneOrientationSequence = _orientation(slices[0])
        shared.PixelMeasuresSequence = _measures(slices[0], gap)
    index_of = {str(one.SOPInstanceUID): index for index, one in enumerate(source.stand_ins)}
    for frame in ds.PerFrameFunctionalGroupsSequence:
        derived_from = frame.DerivationImageSequence[0].SourceImageSequence[0]
        _place_frame(frame, index_of[str(derived_from.ReferencedSOPInstanceUID)], slices, source)
    if not source.volume:
        _order_by_stack(ds)
    if source.placed:
        ds.FrameOfReferenceUID = slices[0].header.FrameOfReferenceUID
    else:
        del ds.FrameOfReferenceUID
        del ds.PositionReferenceIndicator
        ds.PatientOrientation = None


def _place_frame(frame: Dataset, index: int, slices: Sequence[Slice], source: Source) -> None:
    del frame.PlanePositionSequence
    if source.placed:
        position = Dataset()
        position.ImagePositionPatient = decimals(slices[index].position or ())
        frame.PlanePositionSequence = [position]
    if source.volume:
        return
    if source.placed:
        frame.PlaneOrientationSequence = _orientation(slices[index])
        frame.PixelMeasuresSequence = _measures(slices[index])
    content = frame.FrameContentSequence[0]
    content.StackID, content.InStackPositionNumber = "1", index + 1
    indices = content.DimensionIndexValues  # of the segment, where there is one, and of the place
    content.DimensionIndexValues = [indices[0], index + 1] if content["DimensionIndexValues"].VM > 1 else [index + 1]


def _order_by_stack(ds: Dataset) -> None:
    for dimension in ds.DimensionIndexSequence:
        if dimension.DimensionIndexPointer == tag_for_keyword("ImagePositionPatient"):
            dimension.DimensionIndexPointer = tag_for_keyword("InStackPositionNumber")
            dimension.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
            dimension.DimensionDescriptionLabel = "In-Stack Position Number"
    ds.pop("DimensionOrganizationType", None)


def _orientation(one: Slice) -> list[Dataset]:
    item = Dataset()
    item.ImageOrientationPatient = decimals(one.orientation or ())
    return [item]


def _measures(one: Slice, gap: float | None = None) -> list[Dataset]:
    """Pixel Measures; an unknown thickness, which must be there, is taken from the gap or from the spacing of rows."""
    item = Dataset()
    spacing = one.spacing or (1.0, 1.0)
    item.PixelSpacing = decimals(spacing)
    item.SliceThickness = decimals((one.thickness or gap or spacing[0],))[0]
    if gap is not None:
        item.SpacingBetweenSlices = decimals((gap,))[0]
    return [item]
