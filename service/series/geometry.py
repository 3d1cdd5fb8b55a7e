"""Where slices lie in the patient, and their order (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from service.types import Orientation

T = TypeVar("T")
Position = tuple[float, float, float]

_SAME_DIRECTION = 0.99  # cosine, 8 degrees: what still counts as the same orientation
_UNEVEN = 0.05  # share of the median distance by which distances of neighbours may differ


def same_orientation(orientations: Sequence[Orientation]) -> list[bool] | None:
    """Which orientations are that of the majority.

    Returns:
        One for each; None where no orientation, give or take 8 degrees, is that of more than half.
    """
    if not orientations:
        return None
    representatives: list[int] = []
    directions = np.array(orientations, np.float64).reshape(-1, 2, 3)
    group = np.zeros(len(directions), np.int64)
    for index, direction in enumerate(directions):
        cosines = (directions[representatives] * direction).sum(axis=2).min(axis=1)
        if len(cosines) and cosines.max() >= _SAME_DIRECTION:
            group[index] = cosines.argmax()
        else:
            group[index] = len(representatives)
            representatives.append(index)
    largest, count = Counter(group.tolist()).most_common(1)[0]
    return (group == largest).tolist() if 2 * count > len(group) else None


def most_common(values: Sequence[T]) -> T | None:
    """The value that occurs most often, the first of several; None where there are no values."""
    return max(values, key=Counter(values).__getitem__, default=None)


def along_normal(positions: Sequence[Position], orientation: Orientation) -> list[float]:
    """Distances of slices along the normal of their planes, in mm, to a micrometre."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [round(float(distance), 3) for distance in np.array(positions) @ normal]


def evenly_spaced(distances: Sequence[float]) -> bool:
    """Whether neighbours among ascending distances are equally far from each other, equal ones taken as one."""
    steps = np.diff(sorted(set(distances)))
    return len(steps) < 2 or float(np.abs(steps - np.median(steps)).max()) <= _UNEVEN * float(np.median(steps))
