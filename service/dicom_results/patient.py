"""The source's patient and study, as far as they are valid (PS3.3 C.7.1, C.7.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from service.dicom_results.modules import patient_and_study_keywords

REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
"""Attributes that every object has, empty where they are not known (type 2)."""

_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_VALUES = {
    "PatientSex": re.compile(r"[MFO]?"),
    "PatientAge": re.compile(r"\d{3}[DWMY]"),
    "PatientIdentityRemoved": re.compile(r"YES|NO"),
    "PregnancyStatus": re.compile(r"[1-4]"),
    "SmokingStatus": re.compile(r"YES|NO|UNKNOWN"),
    "PatientSexNeutered": re.compile(r"ALTERED|UNALTERED"),
    "LongitudinalTemporalInformationModified": re.compile(r"UNMODIFIED|MODIFIED|REMOVED"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")  # not tab, line feed, form feed, carriage return (PS3.5 6.1.3)
_FRACTION = re.compile(r"(\d{6})\.(\d{7,})")


def copy_patient_and_study(header: Dataset) -> tuple[Dataset, bool]:
    """Copy the modules Patient, Clinical Trial Subject, General Study, Patient Study and Clinical Trial Study.

    Values that their VR does not allow are left out (empty where the attribute must be there); text is decoded, so that
    the copy can be written in another character set.

    Args:
        header: of a source instance.

    Returns:
        The copy, and whether anything was left out.
    """
    keywords = [keyword for keyword in patient_and_study_keywords() if keyword != "StudyInstanceUID"]
    copy, left_out = copy_valid(header, keywords)
    for keyword in REQUIRED:
        if keyword not in copy:
            setattr(copy, keyword, None)
    if copy.get("PatientIdentityRemoved") == "YES" and not (
        copy.get("DeidentificationMethod") or copy.get("DeidentificationMethodCodeSequence")
    ):
        del copy.PatientIdentityRemoved
        left_out = True
    return copy, left_out


def copy_equipment(header: Dataset) -> Dataset:
    """What made the source (PS3.3 C.7.5.1), as far as it is valid."""
    return copy_valid(header, _EQUIPMENT)[0]


def copy_valid(header: Dataset, keywords: Iterable[str]) -> tuple[Dataset, bool]:
    """Copy the named attributes whose values are valid; and say whether others were not."""
    copy, left_out = Dataset(), False
    for keyword in keywords:
        if tag_for_keyword(keyword) is None or keyword not in header:
            continue
        element = _valid(header, keyword)
        if element is None:
            left_out = True
        else:
            copy.add(element)
    return copy, left_out


def _valid(header: Dataset, keyword: str) -> DataElement | None:
    try:
        element = header[keyword]
        if element.VR == "SQ":
            items = [_valid_item(item) for item in element.value]
            return None if None in items else DataElement(element.tag, "SQ", items)
        vr = dictionary_VR(element.tag)
        values = list(element.value) if element.VM > 1 else [element.value] if element.VM else []
        if any(isinstance(value, bytes) for value in values):
            return None
        texts = [_text(value) for value in values]
        pattern = _VALUES.get(keyword)
        for text in texts:
            validate_value(vr, _convert(vr, text), config.RAISE)
            if _CONTROL.search(text) or (pattern is not None and not pattern.fullmatch(text)):
                return None
        converted = [_convert(vr, text) for text in texts]
    except (AttributeError, KeyError, LookupError, NotImplementedError, OverflowError, TypeError, ValueError):
        return None  # damaged in a way that this copy reports, not one that may stop the answer
    return DataElement(element.tag, vr, converted if len(converted) > 1 else converted[0] if converted else None)


def _valid_item(item: Dataset) -> Dataset | None:
    copy, left_out = copy_valid(item, [element.keyword for element in item if element.keyword])
    return None if left_out or not len(copy) else copy


def _text(value: object) -> str:
    return str(value).strip(" \0")


def _convert(vr: str, text: str) -> object:
    """The text as pydicom takes it for this VR."""
    if vr in ("US", "UL", "SS", "SL"):
        return int(text)
    if vr in ("FL", "FD"):
        return float(text)
    if vr == "TM":
        return _FRACTION.sub(lambda found: f"{found[1]}.{found[2][:6]}", text)
    return text
