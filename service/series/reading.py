"""DICOM series: every instance decoded, the frames in geometric order (PS3.3 C.7.3, C.7.6.2, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from service.errors import UnreadableImage
from service.images.contents import NEVER_A_SLICE, content_of_instance
from service.images.dicom import decode, describe, looks_like_dicom
from service.images.parsing import parse
from service.images.pixels import Budget
from service.images.tags import MANUFACTURER, readable_header, text, uid_of
from service.series.anatomy import BodyPart, body_parts
from service.series.arrangement import arrange
from service.series.geometry import most_common
from service.series.slices import LeftOut, Slice, laterality, slices_of
from service.types import Content

__all__ = ["LeftOut", "Series", "Slice", "read_series"]

MAX_SLICES = 8192
MAX_PIXELS = 2**28  # of all instances together: 1024 slices of 512 x 512, 1 GiB as float32


@dataclass(frozen=True, slots=True)
class Series:
    """What one series holds.

    Attributes:
        study: Study Instance UID (0020,000D), empty where absent, as are the following.
        series: Series Instance UID (0020,000E).
        modality: Modality (0008,0060).
        body_part: Body Part Examined (0018,0015), or the same from a coded anatomic region, of most slices.
        description: Series Description (0008,103E).
        laterality: Laterality (0020,0060), Image Laterality (0020,0062) or Frame Laterality (0020,9072): R, L, B, U or
            empty; B where slices of both sides are in the series.
        sop_class: SOP Class UID (0008,0016) of most slices.
        slices: in geometric order, all of one size; empty where nothing of the series can be answered.
        left_out: what was not answered.
        notes: what was wrong or missing in the tags; no DICOM values.
        body_parts: all that any slice's header names, in words or codes (see `service.series.anatomy`).
        contents: what the pixels are where no slice is a picture; empty where all are.
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
    body_parts: tuple[BodyPart, ...] = ()
    contents: tuple[Content, ...] = ()


@dataclass(frozen=True, slots=True)
class _Instance:
    """One file: its header (None where it could not be parsed), and its slices or why there are none."""

    study: str
    series: str
    header: Dataset | None
    slices: Sequence[Slice]
    left_out: Sequence[LeftOut]
    damaged: bool = False


def read_series(contents: Iterable[bytes], hold: Callable[[int], None] = lambda size: None) -> list[Series]:
    """Decode instances, and put the frames of each series in geometric order.

    Localisers, mosaics, what is no picture of a slice among others that are (a map, a phase image), results of this
    service, duplicates, frames of another size, orientation or frame of reference than most, instances without an image
    and those that cannot be read are left out, each with its reason. Slices are ordered along the normal of their
    planes, those at the same place by time and number; the order of the files does not matter (but for files that give
    one SOP Instance UID to different images: the first is kept).

    Args:
        contents: whole files, of any number of series.
        hold: told the most bytes that the pixels of each file take; what it raises ends the reading.

    Returns:
        The series, ordered by their UIDs. A series of which nothing can be answered has no slices. Files that cannot
        be parsed belong to the series where there is just one, else to one without UIDs.

    Raises:
        TooManyImages: more slices or pixels than the service holds in memory.
    """
    budget, seen = Budget(MAX_SLICES, MAX_PIXELS, hold), set[tuple[str, str, str]]()
    groups: dict[tuple[str, str], list[_Instance]] = {}
    for content in contents:
        instance = _read_instance(content, seen, budget)
        groups.setdefault((instance.study, instance.series), []).append(instance)
    lost = groups.get(("", ""), [])
    if len(groups) == 2 and lost and not any(instance.slices for instance in lost):
        del groups["", ""]
        (only,) = groups.values()
        only.extend(lost)
    return [_series(*names, groups[names]) for names in sorted(groups)]


def _read_instance(content: bytes, seen: set[tuple[str, str, str]], budget: Budget) -> _Instance:
    """Decode one file; what is wrong with it is in the result."""
    if content[128:132] != b"DICM" and not looks_like_dicom(content):
        return _Instance("", "", None, (), [LeftOut("", None, "not a DICOM file")])
    try:
        ds = parse(content)
    except UnreadableImage as error:
        return _Instance("", "", None, (), [LeftOut("", None, error.detail)])
    study, series, sop = (uid_of(ds, f"{level}InstanceUID") for level in ("Study", "Series", "SOP"))
    reason, frames = "", []
    if sop and (study, series, sop) in seen:
        reason = "a duplicate: an instance with the same UID came before"
    elif (what := content_of_instance(ds)) and what.kind in NEVER_A_SLICE:
        reason = what.reason
    elif text(ds, "Manufacturer") == MANUFACTURER:
        reason = "a result of this service: what a model drew is not explained as an image"
    else:
        try:
            described = describe(ds)
            budget.take(described.frames, described.pixels)
            frames = decode(ds, described, "")
        except UnreadableImage as error:
            reason = error.detail
        else:
            seen.add((study, series, sop))
    header, damaged = readable_header(ds)
    left_out = [LeftOut(sop, None, reason)] if reason else []
    return _Instance(study, series, header, slices_of(header, frames), left_out, damaged)


def _series(study: str, series: str, instances: Sequence[_Instance]) -> Series:
    arranged = arrange([one for instance in instances for one in instance.slices])
    slices, notes = arranged.slices, list(arranged.notes)
    left_out = [*arranged.left_out, *(one for instance in instances for one in instance.left_out)]
    headers = [one.header for one in slices] or [ds for ds in (i.header for i in instances) if ds is not None]
    if not (study and series):
        notes.append("no usable Study or Series Instance UID")
    if any(instance.damaged for instance in instances):
        notes.append("elements of the header that cannot be read are ignored")
    modalities = {text(header, "Modality") for header in headers}
    if modalities and (len(modalities) > 1 or "" in modalities):
        notes.append("the modality is missing, or not the same for all instances")
    parts = [body_parts(one.header, one.number - 1) for one in slices] or [body_parts(header, 0) for header in headers]
    sides = {side for side in map(laterality, slices) if side}
    return Series(
        study=study,
        series=series,
        modality=_most(headers, lambda header: text(header, "Modality")),
        body_part=most_common([named[0].name for named in parts if named]) or "",
        description=_most(headers, lambda header: text(header, "SeriesDescription")),
        laterality="B" if sides >= {"R", "L"} else min(sides, default=""),
        sop_class=_most(headers, lambda header: uid_of(header, "SOPClassUID")),
        slices=slices,
        left_out=tuple(sorted(left_out, key=lambda one: (one.sop_instance, one.number or 0, one.reason))),
        notes=tuple(notes),
        body_parts=tuple(dict.fromkeys(one for named in parts for one in named)),
        contents=tuple(dict.fromkeys(one.frame.content for one in slices if one.frame.content is not None)),
    )


def _most(headers: Sequence[Dataset], read: Callable[[Dataset], str]) -> str:
    """What most headers say, those that say something."""
    said = [value for value in map(read, headers) if value]
    return most_common(said) or ""
