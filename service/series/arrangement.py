"""Which slices of a series belong together, and in which order (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from service.images.contents import NEVER_A_SLICE
from service.series import geometry
from service.series.slices import (
    LeftOut,
    Slice,
    frame_of_reference,
    pixel_digest,
    place_in_acquisition,
    sop_instance,
)
from service.types import Content

_NO_GEOMETRY = "slices without a usable position or orientation; ordered by instance number"
_NO_COMMON_PLANE = "the slices have no common orientation; ordered by instance number"
_NO_ORDER = "neither geometry nor instance numbers; the order of the slices means nothing"
_UNEVEN = "the distances between slices differ; slices may be missing"
_SAME_PLACE = "several slices lie at the same place"
_NO_SPACING = "slices without a usable pixel spacing"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The slices that stay, in order, and why others do not."""

    slices: tuple[Slice, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def arrange(slices: Sequence[Slice]) -> Arrangement:
    """Leave out what does not belong to the others, and order the rest.

    Localisers, mosaics, what is no picture of a slice among others that are, frames of another size, frame of reference
    or orientation than most, and repeated images go. Slices stay in order along the normal of their planes, row
    direction times column direction; those at the same place in order of time and numbers. Where not all have a place,
    or share no orientation, instance numbers order them.

    Args:
        slices: of one series, in any order.
    """
    left_out: list[LeftOut] = []

    def keep(those: Sequence[bool], reason: str) -> None:
        nonlocal found
        left_out.extend(
            LeftOut(sop_instance(one), one.number, reason) for one, stays in zip(found, those, strict=True) if not stays
        )
        found = [one for one, stays in zip(found, those, strict=True) if stays]

    found, unlike = _pictures(sorted(slices, key=_by_number))
    left_out.extend(LeftOut(sop_instance(one), one.number, what.reason) for one, what in unlike)
    keep(_like_most(found, lambda one: one.frame.pixels.shape), "of another size than most of the series")
    keep(_like_most(found, frame_of_reference), "in another frame of reference than most of the series")
    parallel = _parallel(found)
    keep(parallel or [True] * len(found), "of another orientation than most of the series")
    keep(_first_of_their_kind(found), "a duplicate: the same pixels at the same place")
    ordered, notes = _ordered(found, common_plane=parallel is not None)
    if any(one.spacing is None for one in ordered):
        notes.append(_NO_SPACING)
    return Arrangement(tuple(ordered), tuple(left_out), tuple(notes))


def _pictures(slices: Sequence[Slice]) -> tuple[list[Slice], list[tuple[Slice, Content]]]:
    """The slices that are pictures, and the others; where none is, only what can never be a slice is another."""
    pictured = any(one.frame.content is None for one in slices)
    found = [(one, one.frame.content) for one in slices]
    unlike = [(one, what) for one, what in found if what and (pictured or what.kind in NEVER_A_SLICE)]
    gone = {id(one) for one, _ in unlike}
    return [one for one in slices if id(one) not in gone], unlike


def _by_number(one: Slice) -> tuple[float | str, ...]:
    return (*place_in_acquisition(one)[1:], sop_instance(one))


def _like_most(slices: Sequence[Slice], read: Callable[[Slice], object]) -> list[bool]:
    """Which slices have the value that most have; an empty one is like any other."""
    values = [read(one) for one in slices]
    most = geometry.most_common([value for value in values if value])
    return [not value or value == most for value in values]


def _parallel(slices: Sequence[Slice]) -> list[bool] | None:
    """Which slices are oriented as most are, or say nothing of it; None where there is no such orientation."""
    oriented = [one.orientation for one in slices if one.orientation is not None]
    same = geometry.same_orientation(oriented)
    if same is None:
        return None
    verdicts = iter(same)
    return [one.orientation is None or next(verdicts) for one in slices]


def _first_of_their_kind(slices: Sequence[Slice]) -> list[bool]:
    """Which slices are not the same image at the same place as one before; those without a place are never."""
    places = [(one.position, one.orientation) for one in slices]
    crowded = {place for place, count in Counter(places).items() if count > 1 and place[0] is not None}
    seen: set[object] = set()
    first: list[bool] = []
    for one, place in zip(slices, places, strict=True):
        key = (place, pixel_digest(one)) if place in crowded else None
        first.append(key is None or key not in seen)
        seen.add(key)
    return first


def _ordered(slices: Sequence[Slice], *, common_plane: bool) -> tuple[list[Slice], list[str]]:
    """In order, and notes. `slices` come in order of their numbers."""
    orientations = [one.orientation for one in slices if one.orientation is not None]
    positions = [one.position for one in slices if one.position is not None]
    if common_plane and len(orientations) == len(positions) == len(slices):
        distances = geometry.along_normal(positions, orientations[0])
        keys = [(distance, *place_in_acquisition(one)) for distance, one in zip(distances, slices, strict=True)]
        order = sorted(range(len(slices)), key=keys.__getitem__)  # stable: further ties stay in order of numbers
        even, repeated = geometry.evenly_spaced(distances), len(set(distances)) < len(distances)
        return [slices[index] for index in order], [*([] if even else [_UNEVEN]), *([_SAME_PLACE] if repeated else [])]
    if not slices:
        return [], []
    instances = {sop_instance(one) for one in slices}
    unnumbered = len(instances) > 1 and any(place_in_acquisition(one)[1] == inf for one in slices)
    if unnumbered:
        return list(slices), [_NO_ORDER]
    complete = len(orientations) == len(positions) == len(slices)
    return list(slices), [_NO_COMMON_PLANE if complete else _NO_GEOMETRY]
