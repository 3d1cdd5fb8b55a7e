"""DICOM series: every instance of it decoded, its frames in geometric order (PS3.3 C.7.6.2, C.7.6.16)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from service.types import Frame

Position = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of a series in its place.

    Attributes:
        header: of its instance, without pixel data (PS3.3); the frames of one instance share it.
        number: frame number, from 1.
        frame: decoded; its name is empty, or `#` and the frame number.
        position: Image Position (Patient) (0020,0032), mm; None where the header gives none that can be used.
        orientation: Image Orientation (Patient) (0020,0037), direction cosines of the rows, then of the columns.
        spacing: Pixel Spacing (0028,0030): between rows, between columns, mm.
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


@dataclass(frozen=True, slots=True)
class Series:
    """What one series holds.

    Attributes:
        study: Study Instance UID (0020,000D), empty where absent, as are the following.
        series: Series Instance UID (0020,000E).
        modality: Modality (0008,0060).
        body_part: Body Part Examined (0018,0015).
        description: Series Description (0008,103E).
        laterality: Laterality (0020,0060) or Image Laterality (0020,0062): R, L, B, U or empty.
        sop_class: SOP Class UID (0008,0016).
        slices: in geometric order.
        left_out: what was not answered.
        notes: what was wrong or missing in the tags; no DICOM values.
    """

    study: str
    series: str
    modality: str
    body_part: str
    description: str
    laterality: str
    sop_class: str
    slices: tuple[Slice, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
