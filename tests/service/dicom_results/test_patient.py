from __future__ import annotations

import logging
import struct
from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.valuerep import validate_value

from service.dicom_results.options import KINDS
from service.dicom_results.patient import REQUIRED, copy_patient_and_study
from service.dicom_results.results import make_results
from service.images.tags import readable_header
from tests.dicom_writers import classic_mr, item
from tests.service.dicom_results.answers import answer_for, images

VALUES = st.one_of(
    st.binary(max_size=12), st.text(max_size=80).map(str.encode), st.dates().map(lambda d: f"{d:%Y%m%d}".encode())
)
KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientWeight",
    "PatientComments",
    "PregnancyStatus",
    "StudyID",
    "StudyTime",
    "ReferringPhysicianName",
    "AdmittingDiagnosesDescription",
    "SmokingStatus",
    "PatientIdentityRemoved",
)


def header_of(values: dict[str, bytes]) -> Dataset:
    """A header with whatever values, as careless software writes them and the service reads them."""
    elements = sorted((Tag(keyword), value + b" " * (len(value) % 2)) for keyword, value in values.items())
    content = b"".join(struct.pack("<HHL", tag.group, tag.element, len(value)) + value for tag, value in elements)
    ds = pydicom.dcmread(BytesIO(content), force=True)
    ds.file_meta = FileMetaDataset()
    return readable_header(ds)[0]


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence:UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES))
def test_what_is_copied_is_valid_and_can_be_written(values: dict[str, bytes]) -> None:
    copy, _ = copy_patient_and_study(header_of(values))
    assert set(REQUIRED) <= {element.keyword for element in copy}
    for element in copy:
        for value in element.value if element.VM > 1 else [element.value] if element.VM else []:
            assert not {"\0", "\x1b"} & set(str(value))
            validate_value(element.VR, value if element.VR == "US" else str(value), config.RAISE)
    copy.SpecificCharacterSet = "ISO_IR 192"
    out = BytesIO()
    copy.save_as(out, implicit_vr=False, little_endian=True)
    again = pydicom.dcmread(BytesIO(out.getvalue()), force=True)
    assert again.PatientID == copy.PatientID or not copy.PatientID


def test_valid_values_and_sequences_are_copied() -> None:
    issuer = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    header = item(PatientID="A1", PatientAge="042Y", PatientComments="none")
    header.IssuerOfPatientIDQualifiersSequence = [issuer]
    copy, left_out = copy_patient_and_study(header)
    assert not left_out
    assert (copy.PatientID, copy.PatientAge, copy.PatientComments) == ("A1", "042Y", "none")
    assert copy.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.3"


def test_a_sequence_with_an_invalid_part_is_left_out() -> None:
    header = Dataset()
    header.IssuerOfPatientIDQualifiersSequence = [item(PatientID="A1"), Dataset()]
    copy, left_out = copy_patient_and_study(header)
    assert left_out
    assert "IssuerOfPatientIDQualifiersSequence" not in copy


def test_removed_identity_needs_to_say_how() -> None:
    assert "PatientIdentityRemoved" not in copy_patient_and_study(item(PatientIdentityRemoved="YES"))[0]
    told = item(PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    assert copy_patient_and_study(told)[0].PatientIdentityRemoved == "YES"


def test_no_name_in_logs_or_warnings(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    series = classic_mr(
        images(1), "quiet", PatientName="Unmistakable", PatientID="Unmistakable", StudyID="Unmistakable"
    )
    with caplog.at_level(logging.INFO):
        found = make_results(answer_for(series), KINDS)
    assert all(ds.PatientName == "Unmistakable" for ds in found.objects)
    assert "Unmistakable" not in caplog.text
    assert not [str(warning.message) for warning in recwarn]
