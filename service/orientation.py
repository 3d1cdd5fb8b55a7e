"""Anatomical planes, and how stored rows and columns are brought to the display orientation of their plane.

Directions are those of Image Orientation (Patient) (0020,0037), PS3.3 C.7.6.2.1.1: +x to the patient's left, +y to the
back, +z to the head.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.types import UPRIGHT, Orientation, Plane, Region, Turn

_OBLIQUE = 0.8  # cosine (37 degrees) below which a normal is along no axis: David Clunie's threshold in PixelMed
_UNIT = 0.02  # how far direction cosines may be from unit length, and from a right angle
_PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")  # by the axis of the normal: x, y, z
_DISPLAYED = {  # directions of rows and of columns as radiologists read each plane
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}
_DEPTH = (0, 1, 0)  # in B-scans of the retina columns run from the vitreous to the choroid: towards the back
_ACROSS = ((1, 0, 0), (0, 0, 1))  # rows to the patient's left; of a vertical scan to the head


def usable_orientation(values: tuple[float, ...] | None) -> Orientation | None:
    """Bring direction cosines of rows and columns to unit length.

    Args:
        values: six numbers, or None.

    Returns:
        The same with exact unit lengths; None where they are no two unit vectors at a right angle.
    """
    if values is None:
        return None
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _UNIT or abs(row @ column) > _UNIT:
        return None
    a, b, c, d, e, f = (float(value) for value in (*row / lengths[0], *column / lengths[1]))
    return a, b, c, d, e, f


def plane_of(orientation: Orientation | None) -> Plane | None:
    """Name the anatomical plane of an image.

    Args:
        orientation: direction cosines of rows and columns, or None.

    Returns:
        The plane whose normal lies within 37 degrees of that of the image, else `oblique`; None without an orientation.
    """
    if orientation is None:
        return None
    normal = np.abs(_normal(orientation))
    return _PLANES[int(normal.argmax())] if normal.max() >= _OBLIQUE else "oblique"


def turn_of(orientation: Orientation | None, display: Literal["stored", "patient", "depth"]) -> Turn:
    """Find the turn that brings an image to its display orientation.

    Args:
        orientation: direction cosines of rows and columns; None turns nothing.
        display: `patient` is the radiological orientation of the nearest anatomical plane; `depth` has columns towards
            the patient's back, as B-scans of the retina are shown; `stored` turns nothing.

    Returns:
        The one of eight turns after which rows and columns run along those of the display orientation, as nearly as
        turns by right angles and mirroring allow.
    """
    if orientation is None or display == "stored":
        return UPRIGHT
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    if display == "patient":
        wanted = np.array(_DISPLAYED[_PLANES[int(np.abs(_normal(orientation)).argmax())]], np.float64)
    else:
        depth, other = (column, row) if abs(column[1]) >= abs(row[1]) else (row, column)
        if abs(depth[1]) < _OBLIQUE:  # an en-face image
            return UPRIGHT
        wanted = np.array([max(_ACROSS, key=lambda axis: abs(float(other @ np.array(axis)))), _DEPTH], np.float64)
    along = np.array([row, column]) @ wanted.T  # cosines: [stored row, stored column] by [shown row, shown column]
    transpose = bool(abs(along[0, 1]) + abs(along[1, 0]) > abs(along[0, 0]) + abs(along[1, 1]))
    rows, columns = (along[1, 0], along[0, 1]) if transpose else (along[0, 0], along[1, 1])
    return Turn(transpose=transpose, flip_rows=bool(columns < 0), flip_columns=bool(rows < 0))


def turn_code(turn: Turn) -> int:
    """Number a turn, 0 to 7, for tables; see `turn_from_code`."""
    return turn.transpose << 2 | turn.flip_rows << 1 | turn.flip_columns


def turn_from_code(code: int) -> Turn:
    """Find the turn with a number."""
    return Turn(transpose=bool(code & 4), flip_rows=bool(code & 2), flip_columns=bool(code & 1))


def turned(image: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Turn an array `[..., h, w]`: transpose it, then mirror it. Returns a view."""
    if turn.transpose:
        image = image.swapaxes(-1, -2)
    return image[..., :: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]


def turned_back(image: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Undo `turned`. Returns a view."""
    image = image[..., :: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]
    return image.swapaxes(-1, -2) if turn.transpose else image


def region_turned_back(region: Region, turn: Turn, shape: tuple[int, int]) -> Region:
    """Bring a rectangle of a turned image to the pixels of the stored one.

    Args:
        region: of the turned image.
        turn: how it was turned.
        shape: rows and columns of the turned image.
    """
    x = shape[1] - region.x - region.width if turn.flip_columns else region.x
    y = shape[0] - region.y - region.height if turn.flip_rows else region.y
    if turn.transpose:
        return Region(y, x, region.height, region.width)
    return Region(x, y, region.width, region.height)


def _normal(orientation: Orientation) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])
