"""De-identifying what leaves the house: the Basic Application Level Confidentiality Profile (PS3.15 Annex E).

For the objects that this service makes, and for images without burned-in text. `service.confidentiality` says what
happens to which attribute. Pixels are not touched: burned-in annotations are refused, but a head that can be rendered
from its slices still has a face.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from typing import cast

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from service.confidentiality import (
    BULK_VRS,
    DUMMIES,
    EMPTIED,
    KEPT_BULK,
    KEPT_CONTENT,
    KEPT_IN_THEM,
    KEPT_TEXT,
    NUMBER_VRS,
    PSEUDONYMS,
    REMOVED,
    REMOVED_CONTENT,
    REMOVED_GROUPS,
    TEXT_VRS,
)
from service.errors import NotDeidentifiable
from service.images.codecs import FILE_ERRORS

SHORTEST_KEY = 16
_METHOD = "Radiolucent: PS3.15 Basic Application Confidentiality Profile"
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_STRUCTURED = ("113104", "Clean Structured Content Option")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")


@dataclass(frozen=True, slots=True)
class _Mapping:
    """The key, and the texts that may stay in reports."""

    key: bytes
    safe: frozenset[str]

    def digest(self, kind: str, value: str) -> bytes:
        """Keyed hash of a value, 32 bytes."""
        return hmac.digest(self.key, f"{kind}\0{value}".encode(), hashlib.sha256)

    def uid(self, value: str) -> str:
        """The replacement of a UID: the same for the same UID, under 2.25 (PS3.5 B.2)."""
        return f"2.25.{uuid.UUID(bytes=self.digest('uid', value)[:16], version=5).int}"

    def pseudonym(self, keyword: str, value: str) -> str:
        """The replacement of an identifier; patients have one for name and identifier."""
        return self.digest(keyword, value).hex()[:16].upper()


def deidentify(ds: Dataset, key: bytes, safe_texts: Collection[str] = ()) -> Dataset:
    """A copy of an instance without what identifies the patient, persons, places, devices, dates or orders.

    UIDs, patient and device identifiers are replaced by keyed hashes: what belonged together still does, in every
    object that was de-identified with the same key, and nobody without the key can tell what they were.

    Args:
        ds: the instance, with or without file meta information. It is not changed.
        key: secret of the site, at least 16 bytes.
        safe_texts: texts that may stay in reports, such as the research notice.

    Returns:
        The instance under a new SOP Instance UID, marked as de-identified (PS3.15 E.1.1).

    Raises:
        NotDeidentifiable: the image says that identifying text is burned in.
        ValueError: the key is too short.
    """
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"the key for de-identification needs {SHORTEST_KEY} bytes at least")
    if _says(ds, "BurnedInAnnotation") == "YES":
        raise NotDeidentifiable("text that identifies the patient is burned into the pixels")
    mapping = _Mapping(key, frozenset(safe_texts))
    clean = _cleaned(ds, mapping)
    if "PatientID" in clean or "PatientName" in clean:
        clean.PatientID = clean.PatientName = _patient(ds, mapping)
    if "VerificationFlag" in clean:
        clean.VerificationFlag = "UNVERIFIED"
    clean.PatientIdentityRemoved = "YES"
    clean.LongitudinalTemporalInformationModified = "REMOVED"
    clean.DeidentificationMethod = _METHOD
    methods = [_BASIC, _STRUCTURED] if "ContentSequence" in ds else [_BASIC]
    clean.DeidentificationMethodCodeSequence = [_code(*method) for method in methods]
    clean.file_meta = _file_meta(ds, clean)
    return clean


def _cleaned(ds: Dataset, mapping: _Mapping) -> Dataset:
    clean = Dataset()
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
            kept = _element(element, ds, mapping)
        except FILE_ERRORS:  # a value that is not what its VR says identifies nobody once it is gone
            continue
        if kept is not None:
            clean.add(kept)
    return clean


def _element(element: DataElement, ds: Dataset, mapping: _Mapping) -> DataElement | None:
    """What stands in the place of an element; None where nothing does."""
    keyword = keyword_for_tag(element.tag)
    if _is_removed(element.tag, keyword):
        return None
    if keyword in EMPTIED:
        return DataElement(element.tag, element.VR, [] if element.VR == "SQ" else None)
    if keyword in PSEUDONYMS:
        value = str(element.value or "")
        return DataElement(element.tag, element.VR, value and mapping.pseudonym(keyword, value))
    if keyword in DUMMIES:
        return _dummy(element, keyword, ds, mapping)
    kinds = {element.VR, *dictionary_VR(element.tag).split(" or ")}  # a file can say another VR than the standard
    if kinds == {"SQ"}:
        return _sequence(element, mapping)
    if kinds == {"UI"}:
        return _uids(element, mapping)
    return copy(element) if _is_kept(element, keyword, kinds) else None


def _is_removed(tag: BaseTag, keyword: str) -> bool:
    """Whether the element goes whatever its value: private, unknown, of a group or sequence that is removed."""
    if tag.is_private or not keyword or keyword in REMOVED:
        return True
    return tag.group in REMOVED_GROUPS and keyword not in KEPT_IN_THEM


def _is_kept(element: DataElement, keyword: str, kinds: set[str]) -> bool:
    """Whether a value that is neither a UID nor a sequence may stay as it is; `kinds` are its VRs."""
    if kinds & TEXT_VRS:
        return keyword in KEPT_TEXT
    if kinds & BULK_VRS:
        return keyword in KEPT_BULK
    if "CS" in kinds:
        return all(_CODE_STRING.fullmatch(str(value)) for value in _values(element))
    return kinds <= NUMBER_VRS


def _dummy(element: DataElement, keyword: str, ds: Dataset, mapping: _Mapping) -> DataElement:
    if keyword == "TextValue" and (str(element.value) in mapping.safe or _concept(ds) in KEPT_CONTENT):
        return copy(element)
    return DataElement(element.tag, element.VR, DUMMIES[keyword])


def _sequence(element: DataElement, mapping: _Mapping) -> DataElement:
    items = [item for item in element.value if _concept(item) not in REMOVED_CONTENT]
    return DataElement(element.tag, "SQ", DicomSequence([_cleaned(item, mapping) for item in items]))


def _uids(element: DataElement, mapping: _Mapping) -> DataElement:
    """UIDs of the standard (classes, syntaxes, well-known frames of reference) stay; all others are replaced."""
    values = [str(value) for value in _values(element)]
    new = [value if UID(value).name != value else mapping.uid(value) for value in values]
    return DataElement(element.tag, "UI", new[0] if len(new) == 1 else new)


def _values(element: DataElement) -> list[object]:
    """The values of an element, none where it is empty."""
    if element.value is None or element.value == "":
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _concept(item: Dataset) -> str:
    """Code Value (0008,0100) of the concept name of a content item, empty where it has none."""
    try:
        names = cast("DicomSequence", item.get("ConceptNameCodeSequence") or DicomSequence())
        return _says(names[0], "CodeValue") if len(names) else ""
    except FILE_ERRORS:
        return ""


def _patient(ds: Dataset, mapping: _Mapping) -> str:
    """One pseudonym for the patient: by identifier, or by name where there is none."""
    value = _says(ds, "PatientID") or _says(ds, "PatientName")
    return mapping.pseudonym("patient", value) if value else ""


def _says(ds: Dataset, keyword: str) -> str:
    try:
        return str(ds.get(keyword) or "").strip()
    except FILE_ERRORS:
        return ""


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _file_meta(ds: Dataset, clean: Dataset) -> FileMetaDataset:
    """What a file needs, and nothing of those that wrote or sent it before."""
    meta = FileMetaDataset()
    before = getattr(ds, "file_meta", None) or Dataset()
    meta.MediaStorageSOPClassUID = clean.get("SOPClassUID", UID(""))
    meta.MediaStorageSOPInstanceUID = clean.get("SOPInstanceUID", UID(""))
    if "TransferSyntaxUID" in before:
        meta.TransferSyntaxUID = before.TransferSyntaxUID
    return meta
