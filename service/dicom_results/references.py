"""References of results to the real source instances (PS3.3 C.12.4, 10.3), in place of the stand-ins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydicom.dataset import Dataset

from service.dicom_results.source import Reference, Source
from service.series.reading import Series

_OF_FRAMES = ("SourceImageSequence", "ReferencedImageSequence")
_OF_INSTANCES = ("ReferencedInstanceSequence", "ReferencedSOPSequence")


def put_references(ds: Dataset, source: Source) -> None:
    """Let every reference of `ds` to a stand-in name the instance, and the frame, that it stands for."""
    _replace(ds, source.real)


def _replace(ds: Dataset, names: Mapping[str, Reference]) -> None:
    for element in ds:
        if element.VR != "SQ":
            continue
        for item in element.value:
            _replace(item, names)
        if element.keyword in _OF_FRAMES + _OF_INSTANCES:
            _replace_items(element.value, names, frames=element.keyword in _OF_FRAMES)


def _replace_items(items: list[Dataset], names: Mapping[str, Reference], *, frames: bool) -> None:
    """Name the real instances in the items of one sequence, each of them once."""
    kept: dict[str, Dataset] = {}
    for item in list(items):
        uid = str(item.get("ReferencedSOPInstanceUID", ""))
        real = names.get(uid)
        if real is None:
            kept[uid] = item
            continue
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = real.sop_class, real.sop_instance
        first = kept.setdefault(real.sop_instance, item)
        if frames and real.frame is not None:
            first.ReferencedFrameNumber = sorted({*_frames(first), real.frame})
    items[:] = list(kept.values())


def _frames(item: Dataset) -> Sequence[int]:
    numbers = item.get("ReferencedFrameNumber")
    if numbers is None:
        return ()
    return [int(number) for number in numbers] if isinstance(numbers, Iterable) else [int(numbers)]


def by_instance(references: Iterable[Reference]) -> list[tuple[Reference, list[int]]]:
    """References, one for each instance, with the frames that are meant, in order; none where all are."""
    found: dict[str, tuple[Reference, list[int]]] = {}
    for one in references:
        frames = found.setdefault(one.sop_instance, (one, []))[1]
        if one.frame is not None:
            frames.append(one.frame)
    return list(found.values())


def evidence(series: Series, references: Iterable[Reference], made: Sequence[Dataset]) -> list[Dataset]:
    """Current Requested Procedure Evidence (0040,A375): the source's instances, and what was made of them."""
    by_series: dict[str, list[tuple[str, str]]] = {
        series.series: [(one.sop_class, one.sop_instance) for one, _ in by_instance(references)]
    }
    for ds in made:
        by_series.setdefault(str(ds.SeriesInstanceUID), []).append((str(ds.SOPClassUID), str(ds.SOPInstanceUID)))
    study = Dataset()
    study.StudyInstanceUID = series.study
    study.ReferencedSeriesSequence = []
    for uid, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = [instance_item(*one) for one in instances]
        study.ReferencedSeriesSequence.append(item)
    return [study]


def instance_item(sop_class: str, sop_instance: str) -> Dataset:
    """An item of a sequence of references."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item
