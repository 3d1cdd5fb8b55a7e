"""The objects of an answer, each after those that it refers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from service.dicom_results.instance import Making, start
from service.dicom_results.options import DEFAULT_KINDS, KINDS, Kind, Options
from service.dicom_results.parametric_map import make_parametric_map
from service.dicom_results.presentation import make_presentation
from service.dicom_results.report import make_report
from service.dicom_results.secondary_capture import make_secondary_captures
from service.dicom_results.segmentation import make_segmentation
from service.dicom_results.source import unusable
from service.series.answer import SeriesAnswer

Made = Mapping[Kind, list[Dataset]]
_NO_FRAME = "no {}: the standard puts it into a frame of reference, and the source has none that can be used"


@dataclass(frozen=True, slots=True)
class Results:
    """What was made.

    Attributes:
        objects: complete, with file meta information; those that others refer to come first.
        notes: what was left out or not copied, and why; no DICOM values.
    """

    objects: list[Dataset] = field(default_factory=list[Dataset])
    notes: tuple[str, ...] = ()


def make_results(
    answer: SeriesAnswer, kinds: Collection[Kind] = DEFAULT_KINDS, options: Options | None = None
) -> Results:
    """Make the DICOM objects of an answer.

    The same source, model, method and options give the same UIDs, whatever other kinds are made with it.

    Args:
        answer: for a whole series, with at least one slice.
        kinds: what to make. A presentation state needs the parametric map that it refers to, which is made with it.
        options: see `Options`.

    Returns:
        The objects, and why some are not among them: a source without frame of reference can have no parametric map and
        no presentation state, a map without positive evidence no segmentation, a source without valid UIDs nothing.
    """
    reason = unusable(answer.series)
    if reason is not None:
        return Results(notes=(reason,))
    making = start(answer, options or Options())
    wanted = {*kinds, "parametric_map"} if "presentation" in kinds else set(kinds)
    made: dict[Kind, list[Dataset]] = {}
    notes = list(making.notes)
    for kind in KINDS:
        if kind not in wanted:
            continue
        result = _MAKERS[kind](making, made)
        if isinstance(result, str):
            notes.append(result)
        else:
            made[kind] = result
    return Results([ds for objects in made.values() for ds in objects], tuple(notes))


def _parametric_map(making: Making, made: Made) -> list[Dataset] | str:
    return [make_parametric_map(making)] if making.source.placed else _NO_FRAME.format("parametric map")


def _segmentation(making: Making, made: Made) -> list[Dataset] | str:
    result = make_segmentation(making)
    return result if isinstance(result, str) else [result]


def _secondary_capture(making: Making, made: Made) -> list[Dataset] | str:
    return make_secondary_captures(making)


def _presentation(making: Making, made: Made) -> list[Dataset] | str:
    maps = made.get("parametric_map")
    return [make_presentation(making, maps[0])] if maps else _NO_FRAME.format("presentation state")


def _report(making: Making, made: Made) -> list[Dataset] | str:
    return [make_report(making, [*made.get("parametric_map", ()), *made.get("segmentation", ())])]


_MAKERS: Mapping[Kind, Callable[[Making, Made], list[Dataset] | str]] = {
    "parametric_map": _parametric_map,
    "segmentation": _segmentation,
    "secondary_capture": _secondary_capture,
    "presentation": _presentation,
    "report": _report,
}
