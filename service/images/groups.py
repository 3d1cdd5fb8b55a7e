"""Attributes of one frame: from its functional groups, else from the instance (PS3.3 C.7.6.16)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from service.images.codecs import FILE_ERRORS
from service.images.grading import functional_group
from service.images.tags import numbers, texts

_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def group(header: Dataset, index: int, macro: str) -> Dataset:
    """Find the item of a functional group for a frame; the header itself where there is none that can be read.

    Args:
        header: an instance.
        index: the frame, from 0.
        macro: keyword of the functional group's sequence.
    """
    if not any(keyword in header for keyword in _GROUPS):
        return header
    try:
        return functional_group(header, index, macro)
    except FILE_ERRORS:  # a sequence by its tag, and something else by its VR
        return header


def terms(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Read the values of code strings in upper case, with a space for each underscore and hyphen."""
    return tuple(value.upper().replace("_", " ").replace("-", " ") for value in texts(ds, keyword))


def positive(ds: Dataset, keyword: str) -> float | None:
    """Read a number above 0; None where there is none."""
    found = numbers(ds, keyword, 1)
    return found[0] if found is not None and found[0] > 0 else None
