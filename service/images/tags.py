"""Elements of DICOM headers that may be missing, damaged or of another kind than the standard says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from service.images.charsets import TEXT_VRS, decode
from service.images.codecs import FILE_ERRORS

_PIXEL_ELEMENTS = (
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_KINDS: dict[str, type | tuple[type, ...]] = {  # Python types of the values of a VR (PS3.5 6.2)
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"), str),
    **dict.fromkeys(("DS", "FL", "FD", "IS"), (float, int)),
    **dict.fromkeys(("AT", "SL", "SS", "SV", "UL", "US", "UV"), int),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW"), bytes),
    "PN": PersonName,
    "SQ": Dataset,
}
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_TEXT = 64  # characters of LO (PS3.5 6.2), the longest of what is read as text here
_LARGEST_NUMBER = 1e9

MANUFACTURER = "Radiolucent"  # (0008,0070) of every object that is made here


def text(ds: Dataset, keyword: str) -> str:
    """A text value without the padding around it, cut after 64 characters; empty where there is none."""
    return " ".join(texts(ds, keyword))[:_LONGEST_TEXT]


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a text element; what is not text is left out."""
    try:
        return tuple(str(value).strip() for value in _values(ds, keyword) if isinstance(value, str))
    except FILE_ERRORS:
        return ()


def uid_of(ds: Dataset, keyword: str) -> str:
    """A UID; empty where there is none, or another number of them than one (PS3.5 9)."""
    value = text(ds, keyword)
    return value if _UID.fullmatch(value) else ""


def sop_class_uid(name: str) -> str | None:
    """The UID of a SOP class by its UID or its keyword (PS3.6 A); None where there is none of that name."""
    found: object = getattr(uid, name, None) if name.isidentifier() else uid.UID(name)
    return str(found) if isinstance(found, uid.UID) and found.type == "SOP Class" else None


def sop_class_name(sop_class: str) -> str:
    """The standard's name of a SOP class (PS3.6 A)."""
    return uid.UID(sop_class).name


def integer(ds: Dataset, keyword: str) -> int | None:
    """A whole number, None where there is none."""
    found = numbers(ds, keyword, 1)
    return int(found[0]) if found is not None and found[0].is_integer() else None


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of a number element.

    Args:
        ds: a data set, as parsed.
        keyword: of the element.
        count: how many there must be.

    Returns:
        The values; None unless there are `count`, all of them finite and no larger than what is measured on people.
    """
    try:
        found = tuple(float(value) for value in _values(ds, keyword))
    except FILE_ERRORS:
        return None
    plausible = len(found) == count and all(abs(value) <= _LARGEST_NUMBER for value in found)
    return found if plausible and np.isfinite(found).all() else None


def items(ds: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence."""
    try:
        value: Any = ds.get(keyword)
        return tuple(part for part in value or () if isinstance(part, Dataset))
    except FILE_ERRORS:
        return ()


def _values(ds: Dataset, keyword: str) -> Iterable[Any]:
    value: Any = ds.get(keyword)
    return () if value is None or value == "" else _each(value)


def _each(value: Any) -> Iterable[Any]:  # noqa: ANN401
    return value if isinstance(value, (MultiValue, list, tuple, Sequence)) else (value,)


def readable_header(ds: Dataset) -> tuple[Dataset, bool]:
    """What a data set holds besides pixels.

    Args:
        ds: a parsed instance; its elements are converted in place.

    Returns:
        A data set without pixel data and without the elements that cannot be read, at any depth, so that reading what
        is left raises nothing; and whether there were such elements.
    """
    header = Dataset()
    header.file_meta = ds.file_meta
    damaged = _drop_unreadable(ds)
    header.update(ds)
    for keyword in _PIXEL_ELEMENTS:
        if keyword in header:
            del header[keyword]
    return header, damaged


def _drop_unreadable(ds: Dataset, charsets: tuple[str, ...] = ()) -> bool:
    """`charsets` is Specific Character Set (0008,0005) of the data set around this one."""
    damaged = False
    charsets = texts(ds, "SpecificCharacterSet") or charsets
    for tag in list(ds.keys()):
        try:
            element = _decoded(ds, tag, charsets)
            if not _fits(element):
                raise ValueError
            if element.VR == "SQ":
                damaged |= any([_drop_unreadable(part, charsets) for part in element.value])
            elif element.VR == "PN":
                str(element.value)  # decoded only now
        except FILE_ERRORS:
            ds.pop(tag, None)
            damaged = True
    return damaged


def _decoded(ds: Dataset, tag: BaseTag, charsets: tuple[str, ...]) -> DataElement:
    """The element, its text decoded in the character sets that pydicom does not read, too."""
    raw: object = ds.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value:
        vr = raw.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "")
        if vr in TEXT_VRS and (decoded := decode(raw.value, charsets)) is not None:
            ds[tag] = DataElement(tag, vr, decoded)
    return ds[tag]


def _fits(element: DataElement) -> bool:
    """Whether the value is what its VR says; where it cannot be converted, pydicom leaves something else there."""
    kind = _KINDS.get(element.VR)
    return kind is None or all(
        value is None or value == "" or isinstance(value, kind) for value in _each(element.value)
    )
