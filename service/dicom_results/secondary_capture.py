"""The overlays as Secondary Captures, for viewers that show nothing else (PS3.3 A.8.1)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from service.dicom_results.concepts import SOURCE_IMAGE
from service.dicom_results.instance import RESEARCH, Making, arguments, finish
from service.rendering import overlay

_COPIED = (
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))


def make_secondary_captures(making: Making) -> list[Dataset]:
    """One colour image for each slice, in their order, with colour bar and research notice burned in.

    One scale holds for the whole series: the brightest colour is the series' largest positive value. The images have no
    place in the frame of reference and no pixel spacing: footer and enlargement would make measurements on them wrong.
    """
    peak = max(float(making.answer.saliency.max()), 0.0)
    return [_capture(making, index, peak) for index in range(len(making.answer.slices))]


def _capture(making: Making, index: int, peak: float) -> Dataset:
    from highdicom import CoordinateSystemNames
    from highdicom.sc import SCImage

    one, answer = making.answer.series.slices[index], making.answer.slices[index]
    stand_in = making.source.stand_ins[index]
    picture = np.ascontiguousarray(overlay(one.frame, answer.region, answer.saliency, peak)[..., ::-1])
    orientation = patient_orientation(one.orientation)
    ds = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=orientation or ("L", "P"),
        study_instance_uid=stand_in.StudyInstanceUID,
        **arguments(making, "secondary_capture", index + 1),
    )
    if orientation is None:
        ds["PatientOrientation"].value = None
    ds.BurnedInAnnotation = stand_in.get("BurnedInAnnotation") or "NO"
    for keyword in _COPIED:
        if stand_in.get(keyword):
            setattr(ds, keyword, stand_in[keyword].value)
    ds.DerivationDescription = RESEARCH
    ds.ImageComments = RESEARCH
    ds.SourceImageSequence = [_source(stand_in)]
    return finish(ds, making, f"AI research: overlay of evidence for {making.target}")


def patient_orientation(orientation: tuple[float, ...] | None) -> tuple[str, str] | None:
    """Patient Orientation (0020,0020): where the rows and the columns mostly point (PS3.3 C.7.6.1.1.1)."""
    if orientation is None:
        return None
    row, column = (_direction(np.asarray(orientation[start : start + 3])) for start in (0, 3))
    return row, column


def _direction(cosines: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    axis = int(np.abs(cosines).argmax())
    return _LETTERS[axis][0 if cosines[axis] > 0 else 1]


def _source(stand_in: Dataset) -> Dataset:
    from highdicom.sr import CodedConcept

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = stand_in.SOPClassUID, stand_in.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(SOURCE_IMAGE)]
    return item
