from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config, uid
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from service import confidentiality
from service.confidentiality import DUMMIES, EMPTIED, KEPT_BULK, KEPT_TEXT, PSEUDONYMS, REMOVED
from service.deidentify import deidentify
from service.dicom_results.instance import RESEARCH
from service.dicom_results.options import KINDS
from service.dicom_results.results import make_results
from service.errors import NotDeidentifiable
from tests.dicom_writers import classic_mr, enhanced_mr, ophthalmic_tomography, saved
from tests.service.dicom_results.answers import answer

KEY, OTHER = b"a secret of the site", b"a secret of another site"
CANARY = "ROENTGEN"
IMAGES = [np.full((24, 16), 40 * n, np.uint8) for n in range(1, 4)]
# one value of each VR that would give the patient away
TELLING = {
    "AE": CANARY,
    "AS": "047Y",
    "DA": "18950108",
    "DT": "18950108120000",
    "LO": CANARY,
    "LT": CANARY,
    "PN": f"{CANARY}^Wilhelm",
    "SH": CANARY,
    "ST": CANARY,
    "TM": "120017",
    "UC": CANARY,
    "UI": "1.2.3.18950108",
    "UR": f"https://{CANARY}",
    "UT": CANARY,
    "OB": CANARY.encode(),
    "UN": CANARY.encode(),
}
TRACES = (CANARY.encode(), b"18950108", b"120017", b"047Y")
TEXT = sorted(
    tag
    for tag, (vr, *_, keyword) in DicomDictionary.items()
    if vr in TELLING and keyword and keyword not in KEPT_TEXT | KEPT_BULK and tag >> 16 > 2
)
SEQUENCES = sorted(tag for tag, (vr, *_, keyword) in DicomDictionary.items() if vr == "SQ" and keyword)


def file_of(ds: Dataset) -> bytes:
    if not getattr(ds, "file_meta", None) or "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta = getattr(ds, "file_meta", None) or FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    out = BytesIO()
    ds.save_as(out, enforce_file_format=False)
    return out.getvalue()


def telling(tag: int) -> DataElement:
    vr = dictionary_VR(tag)
    return DataElement(tag, vr, TELLING[vr])


def content(concept: str, text: str, value_type: str = "TEXT") -> Dataset:
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = concept, "DCM", "concept"
    item = Dataset()
    item.ValueType, item.ConceptNameCodeSequence, item.TextValue = value_type, [name], text
    return item


@st.composite
def records(draw, depth: int = 2) -> Dataset:
    """Elements of the dictionary that hold text, at several depths, private ones among them."""
    ds = Dataset()
    for tag in draw(st.lists(st.sampled_from(TEXT), max_size=12)):
        ds.add(telling(tag))
    for tag in draw(st.lists(st.sampled_from(SEQUENCES), max_size=3)) if depth else []:
        ds.add(DataElement(tag, "SQ", Sequence([draw(records(depth - 1))])))
    if draw(st.booleans()):
        ds.private_block(0x0029, CANARY, create=True).add_new(1, "LO", CANARY)
    return ds


@settings(max_examples=150, deadline=None)
@given(records())
def test_no_text_name_date_or_identifier_gets_through(ds):
    written = file_of(deidentify(ds, KEY))
    assert not [trace for trace in TRACES if trace in written]


def survives(tag: int) -> bool:
    ds = Dataset()
    ds.add(telling(tag))
    written = file_of(deidentify(ds, KEY))
    return any(trace in written for trace in TRACES)


def test_each_attribute_that_can_name_somebody_is_removed_or_replaced():
    assert len(TEXT) > 900
    assert [keyword_for_tag(tag) for tag in TEXT if survives(tag)] == []
    assert survives(tag_for_keyword("ManufacturerModelName"))  # so that the test can fail


@pytest.mark.parametrize("keyword", sorted(REMOVED))
def test_nested_data_about_people_places_and_orders_are_removed(keyword):
    ds, inner = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = CANARY, CANARY  # codes are kept elsewhere
    ds.add(DataElement(tag_for_keyword(keyword), "SQ", Sequence([inner])))
    assert keyword not in deidentify(ds, KEY)


def test_every_name_in_the_lists_is_an_attribute():
    for names in (confidentiality.KEPT_TEXT, confidentiality.KEPT_BULK, EMPTIED, DUMMIES, PSEUDONYMS, REMOVED):
        assert [name for name in names if tag_for_keyword(name) is None] == []


def test_a_value_under_another_vr_than_the_standards_is_no_way_through():
    ds = Dataset()
    ds.add(DataElement(0x00080080, "CS", "ST MARYS"))  # Institution Name
    ds.add(DataElement(0x00081030, "UI", "1.2.3"))  # Study Description
    ds.add(
        DataElement(0x00180015, "CS", "Wilhelm Conrad", validation_mode=config.IGNORE)
    )  # Body Part Examined: no code string
    clean = deidentify(ds, KEY)
    assert not {"InstitutionName", "StudyDescription", "BodyPartExamined"} & set(clean.dir())


def series() -> list[Dataset]:
    many = {"PatientAge": "047Y", "PatientWeight": 71, "InstitutionName": CANARY, "ReferringPhysicianName": CANARY}
    return [*classic_mr(IMAGES, **many), enhanced_mr(IMAGES, **many), ophthalmic_tomography(IMAGES, **many)]


@pytest.mark.parametrize("ds", series(), ids=lambda ds: ds.SOPClassUID.name)
def test_images_stay_valid_and_keep_their_pixels(ds, tmp_path):
    before = saved(ds)
    clean = deidentify(ds, KEY)
    written = saved(clean)
    again = pydicom.dcmread(BytesIO(written))
    np.testing.assert_array_equal(again.pixel_array, pydicom.dcmread(BytesIO(before)).pixel_array)
    assert saved(ds) == before  # the original is not changed
    for value in (CANARY, str(ds.PatientName), ds.PatientID, ds.StudyInstanceUID, ds.SOPInstanceUID, ds.StudyDate):
        assert str(value).encode() not in written
    assert again.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in again.DeidentificationMethodCodeSequence] == ["113100"]
    assert {"PatientAge", "PatientWeight", "InstitutionName"}.isdisjoint(again.dir())
    assert again.file_meta.MediaStorageSOPInstanceUID == again.SOPInstanceUID
    if shutil.which("dciodvfy"):
        assert set(errors(written, tmp_path)) <= set(errors(before, tmp_path))


@pytest.mark.parametrize("source", ["classic", "enhanced", "tomography"])
def test_everything_that_the_service_makes_stays_valid_and_says_nothing_of_the_patient(source, tmp_path):
    found = answer(source)
    header = found.series.slices[0].header
    objects = make_results(found, KINDS).objects
    assert len({ds.SOPClassUID for ds in objects}) == len(KINDS)
    clean = [deidentify(ds, KEY, [RESEARCH]) for ds in objects]
    names = {str(ds.SOPInstanceUID) for ds in clean}
    for before, after in zip(objects, clean, strict=True):
        written = saved(after)
        for keyword in (
            "PatientName",
            "PatientID",
            "StudyInstanceUID",
            "SOPInstanceUID",
            "StudyDate",
            "AccessionNumber",
        ):
            assert str(header[keyword].value).encode() not in written, keyword
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "ContentDate"):
            assert keyword not in before or str(before[keyword].value).encode() not in written, keyword
        if shutil.which("dciodvfy"):
            assert errors(written, tmp_path) == []
        references = {str(e.value) for e in after.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
        assert len(references & names) == len(references_to(before, objects))
    (report,) = [ds for ds in clean if "ContentSequence" in ds]
    texts = [str(e.value) for e in report.iterall() if e.keyword == "TextValue"]
    assert RESEARCH in texts
    assert "removed" not in texts


def references_to(ds: Dataset, objects: list[Dataset]) -> set[str]:
    names = {str(one.SOPInstanceUID) for one in objects}
    return names & {str(e.value) for e in ds.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


def errors(content: bytes, folder: Path) -> list[str]:
    path = folder / "one.dcm"
    path.write_bytes(content)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def test_what_belonged_together_still_does_and_only_under_the_same_key():
    first, second, _ = classic_mr(IMAGES)
    one, two, foreign = deidentify(first, KEY), deidentify(second, KEY), deidentify(first, OTHER)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert one[keyword].value == two[keyword].value != first[keyword].value
        assert foreign[keyword].value != one[keyword].value
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.SOPClassUID == first.SOPClassUID
    assert saved(one) == saved(deidentify(first, KEY))
    assert all(len(str(one[k].value)) <= 64 and uid.UID(one[k].value).is_valid for k in ("SOPInstanceUID",))


def test_references_follow_the_instances_that_they_name():
    (image, *_) = classic_mr(IMAGES)
    report, reference, item = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    item.ValueType, item.ReferencedSOPSequence = "IMAGE", [reference]
    report.ContentSequence = [item]
    found = deidentify(report, KEY).ContentSequence[0].ReferencedSOPSequence[0]
    assert found.ReferencedSOPInstanceUID == deidentify(image, KEY).SOPInstanceUID
    assert found.ReferencedSOPClassUID == image.SOPClassUID


def test_reports_keep_what_the_model_is_and_say_nothing_of_the_patient():
    report = Dataset()
    report.VerificationFlag = "VERIFIED"
    report.ContentSequence = [
        content("111001", "Brain MRI"),
        content("121106", "For research use only"),
        content("121106", f"as discussed with Dr {CANARY}"),
        content("121029", CANARY),
    ]
    clean = deidentify(report, KEY, safe_texts=["For research use only"])
    assert [item.TextValue for item in clean.ContentSequence] == ["Brain MRI", "For research use only", "removed"]
    assert clean.VerificationFlag == "UNVERIFIED"
    assert [code.CodeValue for code in clean.DeidentificationMethodCodeSequence] == ["113100", "113104"]


def test_a_patient_without_a_number_has_the_pseudonym_of_the_name():
    named, numbered, nobody = Dataset(), Dataset(), Dataset()
    named.PatientName, named.PatientID = CANARY, ""
    numbered.PatientName, numbered.PatientID = CANARY, "17"
    nobody.PatientName = nobody.PatientID = ""
    first, second, third = (deidentify(ds, KEY) for ds in (named, numbered, nobody))
    assert first.PatientID == first.PatientName
    assert len({first.PatientID, second.PatientID, third.PatientID, ""}) == 3


@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.DeflatedExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]
)
def test_every_encoding_is_written_again_as_it_was(syntax):
    (image, *_) = classic_mr([np.arange(4096, dtype=np.uint16).reshape(64, 64)])
    pixels = image.pixel_array
    if syntax.is_compressed and not syntax.is_deflated:
        image.compress(syntax, generate_instance_uid=False)
    image.file_meta.TransferSyntaxUID = syntax
    again = pydicom.dcmread(BytesIO(saved(deidentify(pydicom.dcmread(BytesIO(saved(image))), KEY))))
    assert again.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(again.pixel_array, pixels)


def test_a_big_endian_file_keeps_its_pixels():
    path = Path(pydicom.data.__file__).parent / "test_files" / "MR_small_bigendian.dcm"
    again = pydicom.dcmread(BytesIO(saved(deidentify(pydicom.dcmread(path), KEY))))
    np.testing.assert_array_equal(again.pixel_array, pydicom.dcmread(path).pixel_array)


def test_burned_in_text_is_refused():
    (image, *_) = classic_mr(IMAGES, BurnedInAnnotation="YES")
    with pytest.raises(NotDeidentifiable, match="burned into"):
        deidentify(image, KEY)


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        deidentify(Dataset(), b"short")
