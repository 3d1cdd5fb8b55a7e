"""The overlays as Secondary Captures, for viewers that show nothing else (PS3.3 A.8.1)."""

from __future__ import annotations

from copy import deepcopy

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from service.dicom_results.concepts import SOURCE_IMAGE
from service.dicom_results.instance import RESEARCH, Making, arguments, finish
from service.dicom_results.references import instance_item
from service.dicom_results.source import Reference
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
    template = _template(making)
    return [_capture(making, template, index, peak) for index in range(len(making.answer.slices))]


def _template(making: Making) -> Dataset:
    """What the captures of a series share; building each from the start would take several times as long."""
    from highdicom import CoordinateSystemNames
    from highdicom.sc import SCImage

    ds = SCImage(
        pixel_array=np.zeros((1, 1, 3), np.uint8),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        study_instance_uid=making.answer.series.study,
        **arguments(making, "secondary_capture"),
    )
    ds.DerivationDescription = RESEARCH
    ds.ImageComments = RESEARCH
    del ds.PixelData
    return finish(ds, making, f"AI research: overlay of evidence for {making.target}")


def _capture(making: Making, template: Dataset, index: int, peak: float) -> Dataset:
    one, answer = making.answer.series.slices[index], making.answer.slices[index]
    picture = cv2.cvtColor(overlay(one.frame, answer.region, answer.saliency, peak), cv2.COLOR_BGR2RGB)
    content = picture.tobytes()
    ds = deepcopy(template)
    ds.SOPInstanceUID = making.uid("secondary_capture", index + 1)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    ds.InstanceNumber = index + 1
    ds.PatientOrientation = patient_orientation(one.orientation)
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.add_new("PixelData", "OB", content + bytes(len(content) % 2))
    stand_in = making.source.stand_ins[index]
    ds.BurnedInAnnotation = stand_in.get("BurnedInAnnotation") or "NO"
    for keyword in _COPIED:
        if stand_in.get(keyword):
            setattr(ds, keyword, stand_in[keyword].value)
    ds.SourceImageSequence = [_source(making.source.references[index])]
    return ds


def patient_orientation(orientation: tuple[float, ...] | None) -> list[str] | None:
    """Patient Orientation (0020,0020): where the rows and the columns mostly point (PS3.3 C.7.6.1.1.1)."""
    if orientation is None:
        return None
    return [_direction(np.asarray(orientation[start : start + 3])) for start in (0, 3)]


def _direction(cosines: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    axis = int(np.abs(cosines).argmax())
    return _LETTERS[axis][0 if cosines[axis] > 0 else 1]


def _source(real: Reference) -> Dataset:
    from highdicom.sr import CodedConcept

    item = instance_item(real.sop_class, real.sop_instance)
    if real.frame is not None:
        item.ReferencedFrameNumber = real.frame
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(SOURCE_IMAGE)]
    return item
