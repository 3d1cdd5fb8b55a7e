"""What every object that is made has in common: equipment, dates, series, identity (PS3.3 C.7.3, C.7.5, C.12.1)."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydicom.dataset import Dataset

from service.dicom_results.concepts import SCHEME, private_scheme
from service.dicom_results.geometry import place_frames
from service.dicom_results.identity import answer_key, service_version, stable_uid
from service.dicom_results.options import KINDS, Kind, Options
from service.dicom_results.patient import copy_valid
from service.dicom_results.references import put_references
from service.dicom_results.source import Source, read_source
from service.images.tags import MANUFACTURER
from service.series.answer import SeriesAnswer

RESEARCH = "Research use only: not a medical device. A saliency map is model evidence, not a lesion outline."
PAIRED = frozenset(("BREAST", "EYE", "RETINA", "KIDNEY", "KNEE", "LUNG", "SHOULDER", "HIP", "ELBOW", "WRIST", "ANKLE"))
UNPAIRED = frozenset(
    ("ABDOMEN", "BRAIN", "CHEST", "CSPINE", "HEAD", "HEART", "LIVER", "LSPINE", "NECK", "PELVIS", "PROSTATE", "SKULL")
)
_NO_DATE, _NO_TIME = "19000101", "000000"
_DATES = ("Content", "Acquisition", "Series", "Study")


@dataclass(frozen=True, slots=True)
class Making:
    """What the objects of one answer are made from."""

    answer: SeriesAnswer
    options: Options
    source: Source
    key: str
    date: str
    time: str
    notes: tuple[str, ...]

    @property
    def target(self) -> str:
        """Display name of the class that the saliency speaks for."""
        name = self.answer.slices[0].saliency.target.name
        return next((label.display for label in self.answer.manifest.labels if label.name == name), name)

    @property
    def model_uid(self) -> str:
        """A UID for the model, the same in every answer of it."""
        return stable_uid("model", self.model_digest)

    @property
    def model_digest(self) -> str:
        """SHA-256 over the digests of the model's files, hexadecimal."""
        files = sorted(self.answer.manifest.files.items())
        return sha256("".join(f"{digest}  {name}\n" for name, digest in files).encode()).hexdigest()

    def uid(self, *parts: str | int) -> str:
        """A UID that is the same whenever the same is made again."""
        return stable_uid(self.key, *parts)


def start(answer: SeriesAnswer, options: Options) -> Making:
    """Gather what the objects of an answer need; its series must not be `unusable`."""
    key = answer_key(answer, options)
    source = read_source(answer.series, key)
    moment = _moment(answer.series.slices[0].header)
    notes = source.notes
    if moment is None:
        notes += ("the source has no date: the content date of the results is 1900-01-01",)
    date, time = moment or (_NO_DATE, _NO_TIME)
    return Making(answer, options, source, key, date, time, notes)


def arguments(making: Making, kind: Kind, number: int = 1) -> dict[str, Any]:
    """The arguments of highdicom's constructors that are the same for every kind; `number` counts within the series."""
    manifest = making.answer.manifest
    return {
        "series_instance_uid": making.uid(kind),
        "series_number": _series_number(making, kind),
        "sop_instance_uid": making.uid(kind, number),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": _long_string(manifest.id),
        "software_versions": (service_version(), manifest.version),
        "device_serial_number": making.model_digest,
        "specific_character_set": "ISO_IR 192",
    }


def finish(ds: Dataset, making: Making, description: str) -> Dataset:
    """Make an object that highdicom built reproducible, and complete it.

    Times of the clock give way to the source's, made-up UIDs to stable ones, stand-ins to the real instances.
    """
    ds.update(deepcopy(making.source.subject))
    place_frames(ds, making.answer.series.slices, making.source)
    put_references(ds, making.source)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        ds.pop(keyword, None)
    for name in ("Content", "PresentationCreation"):
        if f"{name}Date" in ds:
            setattr(ds, f"{name}Date", making.date)
            setattr(ds, f"{name}Time", making.time)
    ds.SeriesDate, ds.SeriesTime = making.date, making.time
    _set_body_part(ds, making)
    ds.SeriesDescription = _long_string(description)
    ds.ContributingEquipmentSequence = _equipment(making)
    _set_dimensions(ds, making)
    if uses_private_codes(ds):
        ds.CodingSchemeIdentificationSequence = [private_scheme()]
    return ds


def algorithm_name(making: Making) -> str:
    """Name of the algorithm: the model's id."""
    return _long_string(making.answer.manifest.id)


def uses_private_codes(ds: Dataset) -> bool:
    """Whether a code of the private scheme is used anywhere in the object."""
    for element in ds:
        if element.VR == "SQ" and any(uses_private_codes(item) for item in element.value):
            return True
        if element.keyword == "CodingSchemeDesignator" and element.value == SCHEME:
            return True
    return False


def _equipment(making: Making) -> list[Dataset]:
    """Contributing Equipment Sequence (0018,A001): what acquired the source, and what made this of it."""
    from highdicom import ContributingEquipment
    from highdicom.sr import CodedConcept
    from highdicom.version import __version__ as highdicom_version
    from pydicom.sr.codedict import codes

    manifest, source = making.answer.manifest, making.source.stand_ins[0]
    made: list[Dataset] = [
        ContributingEquipment(
            MANUFACTURER,
            codes.DCM.ProcessingEquipment,
            manufacturer_model_name=_long_string(manifest.id),
            software_versions=[service_version(), manifest.version, f"highdicom {highdicom_version}"],
            contribution_description=RESEARCH,
        )
    ]
    if source.get("Manufacturer"):
        acquisition = Dataset()
        acquisition.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.AcquisitionEquipment)]
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"):
            if source.get(keyword):
                setattr(acquisition, keyword, source[keyword].value)
        acquisition.ContributionDescription = "Acquisition of the source images"
        made.insert(0, acquisition)
    return made


def _set_dimensions(ds: Dataset, making: Making) -> None:
    """Give Dimension Organization (PS3.3 C.7.6.17) a stable UID."""
    if "DimensionOrganizationSequence" not in ds:
        return
    uid = making.uid("dimensions", str(ds.SOPInstanceUID))
    for item in (*ds.DimensionOrganizationSequence, *ds.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = uid


def _set_body_part(ds: Dataset, making: Making) -> None:
    """Body part and side (PS3.3 C.7.3.1).

    The side must be there, if only empty, with a part of which there are two, or with none, and must not be there with
    another part. A part that is in neither list is therefore not named. A Segmentation has its region in the segment,
    the series of a report has neither (C.17.1).
    """
    if ds.Modality in ("SEG", "SR"):
        return
    body_part, laterality = making.answer.series.body_part, making.answer.series.laterality
    if body_part in PAIRED or body_part in UNPAIRED:
        ds.BodyPartExamined = body_part
    if body_part not in UNPAIRED:
        ds.Laterality = laterality if laterality in ("R", "L") else ""


def _moment(header: Dataset) -> tuple[str, str] | None:
    """Date and time of the source's content, or of what is nearest to it."""
    for name in _DATES:
        found = copy_valid(header, (f"{name}Date", f"{name}Time"))[0]
        date, time = str(found.get(f"{name}Date") or ""), str(found.get(f"{name}Time") or "")
        if re.fullmatch(r"\d{8}", date):
            return date, time or _NO_TIME
    return None


def _series_number(making: Making, kind: Kind) -> int:
    """A number behind the source's own: 401 gives 40101, 40102 and so on."""
    number = int(making.source.stand_ins[0].get("SeriesNumber") or 0)
    return (number if 0 < number < 10_000_000 else 90) * 100 + KINDS.index(kind) + 1


def _long_string(text: str) -> str:
    """Text for the VR LO: at most 64 characters, without backslash."""
    return text.replace("\\", "/")[:64]
