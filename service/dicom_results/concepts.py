"""Coded concepts of the objects (PS3.16), and private ones where a model's labels have no code."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from service.manifest import Finding, Label, Manifest
from service.types import Decision

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME = "99RADIOLUCENT"
SALIENCY = Code("130404", "DCM", "Saliency")
CLASS_ACTIVATION = Code("130402", "DCM", "Class activation")
GRADIENT_CLASS_ACTIVATION = Code("130403", "DCM", "Gradient-weighted class activation")
PROBABILITY = Code("122157", "DCM", "Probability")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
COMMENT = Code("121106", "DCM", "Comment")
RELATIONAL = Code("309825002", "SCT", "Spatial and Relational Concept")
PRESENCE = Code("705057003", "SCT", "Presence")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("2667000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")
NOT_EVALUATED = Code("373121007", "SCT", "Not Evaluated")
SIDES = {"R": Code("24028007", "SCT", "Right"), "L": Code("7771000", "SCT", "Left")}
NO_UNITS = Code("1", "UCUM", "no units")
MOST_PROBABLE = Code("most-probable", SCHEME, "Most probable class")
POOLED = Code("pooled", SCHEME, "Pooled over the series")
OF_SLICE = Code("slice", SCHEME, "Of one slice")

_DECISIONS: Mapping[Decision, Code] = {
    "present": PRESENT,
    "absent": ABSENT,
    "not decided": UNDETERMINED,
    "not assessed": NOT_EVALUATED,
}
_QUANTITIES = {
    "cam": CLASS_ACTIVATION,
    "gradcam": GRADIENT_CLASS_ACTIVATION,
    "gradcam_plusplus": GRADIENT_CLASS_ACTIVATION,
    "hirescam": GRADIENT_CLASS_ACTIVATION,
    "layercam": GRADIENT_CLASS_ACTIVATION,
}


def quantity_of(method: str) -> Code:
    """What a map holds: CID 7180 knows class activation, weighted by gradients or not, and saliency in general."""
    return _QUANTITIES.get(method, SALIENCY)


def presence_of(decision: Decision) -> Code:
    """What is decided of a finding: CID 240 has present, absent and undetermined, CID 3703 what was not evaluated."""
    return _DECISIONS[decision]


def concept_of(what: Finding | Label, manifest: Manifest) -> CodedConcept:
    """The code that the model gives a finding or label, or a private one."""
    from highdicom.sr import CodedConcept

    if what.code is not None:
        return CodedConcept(what.code.value, what.code.scheme, what.code.meaning)
    return CodedConcept(_private_value(manifest.id, what.name), SCHEME, what.display[:64])


def probability_of(label: Label, manifest: Manifest) -> Code:
    """The probability of a class, as the name of a measurement."""
    return Code(_private_value(manifest.id, label.name, "probability"), SCHEME, f"Probability of {label.display}"[:64])


def _private_value(*parts: str) -> str:
    return sha256("/".join(parts).encode()).hexdigest()[:16]


def private_scheme() -> Dataset:
    """The item of Coding Scheme Identification Sequence (0008,0110) for the private codes."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Classes and findings of Radiolucent's models"
    item.CodingSchemeResponsibleOrganization = "Radiolucent"
    return item


def body_part_of(manifest: Manifest) -> Code | None:
    """The body part that the model is for."""
    part = manifest.kind.body_part
    return None if part is None else Code(part.value, part.scheme, part.meaning)
