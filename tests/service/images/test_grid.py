from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from service.images.grid import read_grid


def described(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def in_frames(keyword: str, *items: Dataset | None, shared: Dataset | None = None) -> Dataset:
    """An instance with one functional group for each frame, and a shared one."""
    ds = Dataset()
    ds.PerFrameFunctionalGroupsSequence = [described(**({} if one is None else {keyword: [one]})) for one in items]
    if shared is not None:
        ds.SharedFunctionalGroupsSequence = [described(**{keyword: [shared]})]
    return ds


@pytest.mark.parametrize(
    ("elements", "spacing", "aspect"),
    [
        ({"PixelSpacing": [2, 1], "ImagerPixelSpacing": [1, 4]}, (2, 1), 2),
        ({"ImagerPixelSpacing": [1, 4], "NominalScannedPixelSpacing": [3, 1]}, None, 0.25),
        ({"NominalScannedPixelSpacing": [3, 1], "PixelAspectRatio": [1, 2]}, None, 3),
        ({"PixelAspectRatio": [1, 2]}, None, 0.5),
        ({"PixelSpacing": [0, 1], "PixelAspectRatio": [1, 2]}, None, 0.5),
        ({"PixelSpacing": [-1, 1]}, None, None),
        ({"PixelSpacing": [1]}, None, None),
        ({}, None, None),
    ],
)
def test_the_spacing_is_the_first_that_can_be_used(elements, spacing, aspect):
    grid = read_grid(described(**elements), 0)
    assert (grid.spacing, grid.aspect) == (spacing, aspect)


def test_every_frame_has_its_own_spacing_and_orientation_or_the_shared_one():
    ds = in_frames("PixelMeasuresSequence", described(PixelSpacing=[2, 1]), None, shared=described(PixelSpacing=[1, 1]))
    assert [read_grid(ds, index).aspect for index in (0, 1)] == [2, 1]
    own, shared = (described(ImageOrientationPatient=values) for values in ([0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0]))
    ds = in_frames("PlaneOrientationSequence", own, None, shared=shared)
    assert [read_grid(ds, index).orientation for index in (0, 1)] == [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 1, 0)]


@pytest.mark.parametrize(
    ("letters", "orientation"),
    [
        (["L", "P"], (1, 0, 0, 0, 1, 0)),
        (["RA", "AF"], (-1, 0, 0, 0, -1, 0)),
        (["P", "F"], (0, 1, 0, 0, 0, -1)),
        (["L", "L"], None),
        (["X", "P"], None),
        (["L"], None),
    ],
)
def test_letters_give_the_main_directions_where_there_are_no_cosines(letters, orientation):
    assert read_grid(described(PatientOrientation=letters), 0).orientation == orientation
    both = described(PatientOrientation=letters, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    assert read_grid(both, 0).orientation == (0, 1, 0, 0, 0, -1)


def test_what_is_no_sequence_where_one_belongs_counts_as_absent():
    ds = described(PixelSpacing=[2, 1])
    ds.add_new(0x52009229, "LO", "ab")
    assert read_grid(ds, 0).aspect == 2
