"""Single frames of DICOM instances in their place (PS3.3 C.7.6.2, C.7.6.16)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from pydicom.dataset import Dataset

from service.images.codecs import FILE_ERRORS
from service.images.grading import functional_group
from service.images.tags import integer, items, numbers, text, texts, uid_of
from service.series.geometry import Position
from service.types import Frame, Orientation

_SCOUT = frozenset(("LOCALIZER", "SCOUT"))
# Anatomic Region (0008,2218) as Body Part Examined writes it (PS3.16 annex L): SNOMED CT, and the codes before it
_BODY_PARTS = {
    "12738006": "BRAIN",
    "T-A0100": "BRAIN",
    "69536005": "HEAD",
    "T-D1100": "HEAD",
    "5665001": "RETINA",
    "T-AA610": "RETINA",
    "81745001": "EYE",
    "T-AA000": "EYE",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of a series in its place.

    Attributes:
        header: of its instance, without pixel data (PS3.3); the frames of one instance share it. Elements that cannot
            be read are not in it.
        number: frame number, from 1.
        frame: decoded; its name is empty, or `#` and the frame number.
        position: Image Position (Patient) (0020,0032), mm; None where the header gives none that can be used.
        orientation: of the frame.
        spacing: of the frame.
        thickness: Slice Thickness (0018,0050), mm.
    """

    header: Dataset
    number: int
    frame: Frame
    position: Position | None
    orientation: Orientation | None
    spacing: tuple[float, float] | None
    thickness: float | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An instance or frame that is not part of the answer, and why.

    Attributes:
        sop_instance: SOP Instance UID (0008,0018), empty where it could not be read.
        number: frame number, from 1; None for a whole instance.
        reason: for people; it holds no DICOM values.
    """

    sop_instance: str
    number: int | None
    reason: str


def slices_of(header: Dataset, frames: Sequence[Frame]) -> list[Slice]:
    """The frames of an instance, each with its place from its functional groups or from the instance.

    Args:
        header: without pixel data and unreadable elements.
        frames: decoded, in order.
    """
    return [_slice(header, index, frame) for index, frame in enumerate(frames)]


def _slice(header: Dataset, index: int, frame: Frame) -> Slice:
    measures = _macro(header, index, "PixelMeasuresSequence")
    position = numbers(_macro(header, index, "PlanePositionSequence"), "ImagePositionPatient", 3)
    thickness = numbers(measures, "SliceThickness", 1)
    return Slice(
        header=header,
        number=index + 1,
        frame=frame,
        position=None if position is None else (position[0], position[1], position[2]),
        orientation=frame.orientation,
        spacing=frame.spacing,
        thickness=thickness[0] if thickness is not None and thickness[0] > 0 else None,
    )


def _macro(header: Dataset, index: int, keyword: str) -> Dataset:
    """The item of a functional group for a frame; the header itself where there is none."""
    try:
        found = functional_group(header, index, keyword)
    except FILE_ERRORS:  # a sequence by its tag, and something else by its VR
        return header
    return found


def is_localiser(header: Dataset, index: int | None = None) -> bool:
    """Whether Image Type (0008,0008), or a frame's Frame Type (0008,9007), says that it is for planning others."""
    if index is None:
        return not _SCOUT.isdisjoint(texts(header, "ImageType"))
    return not _SCOUT.isdisjoint(texts(_macro(header, index, "MRImageFrameTypeSequence"), "FrameType"))


def sop_instance(one: Slice) -> str:
    """SOP Instance UID (0008,0018), empty where there is none."""
    return uid_of(one.header, "SOPInstanceUID")


def frame_of_reference(one: Slice) -> str:
    """Frame of Reference UID (0020,0052), empty where there is none."""
    return uid_of(one.header, "FrameOfReferenceUID")


def place_in_acquisition(one: Slice) -> tuple[float, ...]:
    """What orders slices that the geometry does not: time, instance number, place in the stack, frame number."""
    content = _macro(one.header, one.number - 1, "FrameContentSequence")
    found = (
        integer(content, "TemporalPositionIndex") or integer(one.header, "TemporalPositionIdentifier"),
        integer(one.header, "InstanceNumber"),
        integer(content, "InStackPositionNumber"),
    )
    return (*(inf if value is None else value for value in found), one.number)


def pixel_digest(one: Slice) -> tuple[object, ...]:
    """What slices share that show the same pixels."""
    pixels = one.frame.pixels
    return hashlib.blake2b(pixels.tobytes()).digest(), pixels.dtype.str, pixels.shape


def body_part(header: Dataset) -> str:
    """Body Part Examined (0018,0015), or the same from the anatomic region of the instance or its first frame."""
    named = text(header, "BodyPartExamined").upper()
    if named:
        return named
    for ds in (header, _macro(header, 0, "FrameAnatomySequence")):
        for region in items(ds, "AnatomicRegionSequence"):
            if (found := text(region, "CodeValue")) in _BODY_PARTS:
                return _BODY_PARTS[found]
    return ""


def laterality(one: Slice) -> str:
    """Image Laterality, Frame Laterality or Laterality: R, L, B (both), U (unpaired); empty for anything else."""
    anatomy = _macro(one.header, one.number - 1, "FrameAnatomySequence")
    for ds, keyword in (
        (one.header, "ImageLaterality"),
        (anatomy, "FrameLaterality"),
        (one.header, "Laterality"),
    ):
        if (found := text(ds, keyword).upper()) in ("R", "L", "B", "U"):
            return found
    return ""
