"""Body parts that a header names, in words and in codes, as Body Part Examined (0018,0015) writes them (PS3.16 L)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset

from service.images.groups import group
from service.images.tags import items, text

UNKNOWN = "?"
_CONTEXT_GROUPS = ("CID4", "CID4031", "CID4040", "CID4209")  # anatomic regions: all, of radiology, endoscopy, eyes
_SEQUENCES = {
    "AnatomicRegionSequence": "Anatomic Region Sequence (0008,2218)",
    "PrimaryAnatomicStructureSequence": "Primary Anatomic Structure Sequence (0008,2228)",
}
_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
# terms of PS3.16 annex L that are shorter than the meaning of their code
_SHORT = {"CERVICALSPINE": "CSPINE", "THORACICSPINE": "TSPINE", "LUMBARSPINE": "LSPINE", "HEADANDNECK": "HEADNECK"}
_MORE = ("MACULA", "MACULALUTEA")  # regions that writers code, and that are in none of the groups
_AROUND = re.compile(r"^(ENTIRE|STRUCTURE OF)\b|\b(STRUCTURE|REGION|JOINT|OF EYE)$|[^A-Z0-9]")


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A body part in upper case without spaces, as PS3.16 annex L has it, or `UNKNOWN`; and what names it."""

    name: str
    source: str


def body_parts(header: Dataset, index: int) -> tuple[BodyPart, ...]:
    """List every body part that the header says a frame shows, each once.

    Body Part Examined (0018,0015), Anatomic Region Sequence (0008,2218) and Primary Anatomic Structure Sequence
    (0008,2228) of the instance, of Frame Anatomy (0020,9071) of all its frames and of this one are read.

    Args:
        header: an instance.
        index: the frame, from 0.

    Returns:
        Each once. The name is `UNKNOWN` for a code that is in none of the standard's groups of anatomic regions and
        whose meaning is no name in them.
    """
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    places = (header, group(header, index, "FrameAnatomySequence"), *(_anatomy(one) for one in shared))
    named = text(header, "BodyPartExamined").upper()
    found = [BodyPart(named, "Body Part Examined (0018,0015)")] if named else []
    return tuple(dict.fromkeys((*found, *(part for place in places for part in _coded(place)))))


def _anatomy(shared: Dataset) -> Dataset:
    found = items(shared, "FrameAnatomySequence")
    return found[0] if found else Dataset()


def _coded(place: Dataset) -> Iterator[BodyPart]:
    for keyword, source in _SEQUENCES.items():
        for region in items(place, keyword):
            value = next(filter(None, (text(region, name) for name in _VALUES)), "")
            meaning = text(region, "CodeMeaning")
            if value or meaning:
                yield BodyPart(_name(value, text(region, "CodingSchemeDesignator").upper(), meaning), source)


@lru_cache(1024)
def _name(value: str, scheme: str, meaning: str) -> str:
    """Find the term for a code: of SNOMED, present or older, by its value, of another scheme by its meaning.

    Values of SNOMED are told by their form, for writers name the scheme in many ways (SCT, SRT, SNM3, 99SDM).
    """
    from pydicom.sr.codedict import codes  # some megabytes, which only coded headers need
    from pydicom.sr.coding import Code

    known = [code for name in _CONTEXT_GROUPS for code in getattr(codes, name).concepts.values()]
    if value[:2].upper() == "T-":
        code = Code(value.upper(), "SRT", "")
        found = next((one for one in known if one == code), None)
    elif value.isdigit() and (len(value) > 5 or scheme in ("SCT", "")):
        found = next((one for one in known if one.value == value), None)
    else:
        found = None
    if found is not None:
        return _term(found.meaning)
    term = _term(meaning)
    return term if term in {*_MORE, *(_term(one.meaning) for one in known)} else UNKNOWN


def _term(meaning: str) -> str:
    term, before = meaning.upper().strip(), ""
    while term != before:
        before, term = term, _AROUND.sub("", term.strip())
    return _SHORT.get(term, term)
