"""The source as highdicom takes it: one stand-in for each slice, whatever kind of instance the slice is a frame of.

highdicom reads position, patient and study from "source images" and refers to them. Real sources may be several
multi-frame instances, lack frames that were left out, hold values that no valid object may repeat, or be of a class
that highdicom does not know. A stand-in is a small valid single-frame header in an invented place, in the slices'
order; `service.dicom_results.geometry` then puts frames where the slices really lie, and
`service.dicom_results.references` lets references name the real instances and frames. Nothing about the patient goes
through highdicom, whose warnings quote names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from service.dicom_results.identity import stable_uid
from service.dicom_results.modules import may_have_frames
from service.dicom_results.patient import REQUIRED, copy_equipment, copy_patient_and_study, copy_valid
from service.images.tags import integer, uid_of
from service.series.reading import Series
from service.series.slices import Slice

_SAME = 1e-3  # of direction cosines, and relative of spacings
_APART = 1e-4  # mm
_COPIED = (
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "PositionReferenceIndicator",
    "SeriesNumber",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The instance, and the frame of it where there are several, that a slice came from."""

    sop_class: str
    sop_instance: str
    frame: int | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where results come from and belong.

    Attributes:
        stand_ins: one for each slice.
        references: what they stand for, in their order.
        real: the same by the stand-ins' SOP Instance UIDs.
        placed: every slice has a place in the same frame of reference.
        volume: and they are parallel, spaced alike within the plane, and no two lie in one place.
        subject: the modules of patient and study, to be copied into every object.
        notes: what could not be copied, and why; no DICOM values.
    """

    stand_ins: tuple[Dataset, ...]
    references: tuple[Reference, ...]
    real: Mapping[str, Reference]
    placed: bool
    volume: bool
    subject: Dataset
    notes: tuple[str, ...]


def unusable(series: Series) -> str | None:
    """Why nothing can be made for a series: objects must name their study and the instances that they are about."""
    if not series.slices:
        return "the series has no slice that was answered"
    uids = {series.study, series.series}
    for one in series.slices:
        uids |= {uid_of(one.header, "SOPClassUID"), uid_of(one.header, "SOPInstanceUID")}
    if not all(uid and UID(uid).is_valid for uid in uids):
        return "a UID of the source's study, series, instances or classes is missing or not valid"
    return None


def read_source(series: Series, key: str) -> Source:
    """Prepare a series that is not `unusable`; `key` names the stand-ins."""
    subject, left_out = copy_patient_and_study(series.slices[0].header)
    notes = ["values of the source's patient or study that are not valid were not copied"] if left_out else []
    places = {frame_of_reference(one) for one in series.slices}
    placed = len(places) == 1 and None not in places
    if placed and not all(one.thickness for one in series.slices):
        notes.append("slice thickness is not known: the distance between slices, or that between rows, stands for it")
    volume = placed and _is_volume(series.slices)
    stand_ins = [_stand_in(one, series, stable_uid(key, "stand-in", i)) for i, one in enumerate(series.slices)]
    stand_ins[0].update(copy_equipment(series.slices[0].header))
    for index, ds in enumerate(stand_ins):
        _invent_place(ds, index, stable_uid(key, "nowhere"))
    references = tuple(map(_reference, series.slices))
    real = {str(ds.SOPInstanceUID): one for ds, one in zip(stand_ins, references, strict=True)}
    return Source(tuple(stand_ins), references, real, placed, volume, subject, tuple(notes))


def frame_of_reference(one: Slice) -> str | None:
    """Frame of Reference UID (0020,0052) of a slice that has a place in it."""
    uid = uid_of(one.header, "FrameOfReferenceUID")
    placed = one.position is not None and one.orientation is not None and one.spacing is not None
    return uid if placed and uid and UID(uid).is_valid else None


def _is_volume(slices: tuple[Slice, ...]) -> bool:
    steps = np.diff(distances(slices))
    return all(_alike(one, slices[0]) for one in slices) and bool((np.abs(steps) > _APART).all())


def _alike(one: Slice, first: Slice) -> bool:
    turned = np.abs(np.subtract(one.orientation or (), first.orientation or ())).max()
    stretched = np.abs(np.divide(one.spacing or (), first.spacing or ()) - 1).max()
    return bool(turned < _SAME and stretched < _SAME)


def distances(slices: Sequence[Slice]) -> list[float]:
    """Distances of the slices along their common normal, mm."""
    orientation = slices[0].orientation or (1, 0, 0, 0, 1, 0)
    normal = np.cross(orientation[:3], orientation[3:])
    return [float(np.dot(normal, one.position or (0, 0, 0))) for one in slices]


def _stand_in(one: Slice, series: Series, uid: str) -> Dataset:
    ds = Dataset()
    ds.update(copy_valid(one.header, _COPIED)[0])
    for keyword in REQUIRED:
        setattr(ds, keyword, None)
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = series.study, series.series
    ds.Rows, ds.Columns = one.frame.pixels.shape
    ds.SamplesPerPixel = integer(one.header, "SamplesPerPixel") or 1
    return ds


def _invent_place(ds: Dataset, index: int, frame_of_reference: str) -> None:
    ds.FrameOfReferenceUID = frame_of_reference
    ds.ImagePositionPatient = decimals((0, 0, -index))  # highdicom orders frames against this normal
    ds.ImageOrientationPatient = decimals((1, 0, 0, 0, 1, 0))
    ds.PixelSpacing = decimals((1, 1))
    ds.SliceThickness = decimals((1,))[0]


def decimals(values: Iterable[float]) -> list[str]:
    """Numbers for the VR DS, in at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in values]


def _reference(one: Slice) -> Reference:
    """The frame is named where there are several, unless the class knows none: then the source is not valid."""
    sop_class = uid_of(one.header, "SOPClassUID")
    several = (integer(one.header, "NumberOfFrames") or 1) > 1 and may_have_frames(sop_class)
    return Reference(sop_class, uid_of(one.header, "SOPInstanceUID"), one.number if several else None)
