"""The size and the direction of a frame's pixels in the patient (PS3.3 C.7.6.2.1.1, 10.7)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from service.images.codecs import FILE_ERRORS
from service.images.grading import functional_group
from service.images.tags import numbers, texts
from service.orientation import usable_orientation
from service.types import Orientation

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_DIRECTIONS: dict[str, tuple[float, float, float]] = {  # of Patient Orientation (PS3.3 C.7.6.1.1.1)
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}


@dataclass(frozen=True, slots=True)
class Grid:
    """How the pixels of a frame lie in the patient.

    Attributes:
        spacing: Pixel Spacing (0028,0030), mm between rows and between columns, None where there is none.
        aspect: spacing of rows divided by spacing of columns; None where no attribute gives it.
        orientation: direction cosines of rows and columns, None where the header does not say.
    """

    spacing: tuple[float, float] | None
    aspect: float | None
    orientation: Orientation | None


def read_grid(ds: Dataset, index: int) -> Grid:
    """Read the spacing and the orientation of one frame.

    The spacing is Pixel Spacing, of the frame's Pixel Measures where there are any; its aspect may also come from
    Imager Pixel Spacing (0018,1164), Nominal Scanned Pixel Spacing (0018,2010) or Pixel Aspect Ratio (0028,0034). The
    orientation is Image Orientation (Patient) (0020,0037), else the main directions of Patient Orientation (0020,0020).

    Args:
        ds: an instance; values that cannot be read or are not positive count as absent.
        index: the frame, from 0.
    """
    measures = _macro(ds, index, "PixelMeasuresSequence")
    spacing = _pair(measures, "PixelSpacing")
    pairs = (spacing, *(_pair(ds, keyword) for keyword in _SPACINGS))
    found = next((pair for pair in pairs if pair is not None), None)
    place = _macro(ds, index, "PlaneOrientationSequence")
    orientation = usable_orientation(numbers(place, "ImageOrientationPatient", 6)) or _by_letters(ds)
    return Grid(spacing, None if found is None else found[0] / found[1], orientation)


def _macro(ds: Dataset, index: int, keyword: str) -> Dataset:
    try:
        return functional_group(ds, index, keyword)
    except FILE_ERRORS:  # a sequence by its tag, and something else by its VR
        return ds


def _pair(ds: Dataset, keyword: str) -> tuple[float, float] | None:
    found = numbers(ds, keyword, 2)
    return (found[0], found[1]) if found is not None and min(found) > 0 else None


def _by_letters(ds: Dataset) -> Orientation | None:
    """Read Patient Orientation: the main direction of the rows and that of the columns."""
    directions = [_DIRECTIONS.get(value[:1]) for value in texts(ds, "PatientOrientation")]
    if len(directions) != 2 or directions[0] is None or directions[1] is None:
        return None
    return usable_orientation((*directions[0], *directions[1]))
