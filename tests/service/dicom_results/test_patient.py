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


ESC = b"\x1b"


def korean(name: str) -> bytes:
    return b"^".join(ESC + b"$)C" + part.encode("euc_kr") for part in name.split("^"))


def chinese(name: str) -> bytes:
    return b"^".join(ESC + b"$)A" + part.encode("gb2312") for part in name.split("^"))


def japanese(name: str) -> bytes:
    return b"^".join(part.encode("iso2022_jp") for part in name.split("^"))


@pytest.mark.filterwarnings("ignore:Unknown encoding 'ISO")
@pytest.mark.parametrize(
    ("charset", "stored", "name"),
    [
        ("ISO_IR 100", "Buc^Jérôme".encode("latin_1"), "Buc^Jérôme"),
        ("ISO_IR 101", "Wałęsa".encode("iso8859_2"), "Wałęsa"),
        ("ISO_IR 109", "Ĝo".encode("iso8859_3"), "Ĝo"),
        ("ISO_IR 110", "ąŗĩ".encode("iso8859_4"), "ąŗĩ"),
        ("ISO_IR 126", "Διονυσιος".encode("iso8859_7"), "Διονυσιος"),
        ("ISO_IR 127", "قباني^لنزار".encode("iso8859_6"), "قباني^لنزار"),
        ("ISO_IR 138", "שרון^דבורה".encode("iso8859_8"), "שרון^דבורה"),
        ("ISO_IR 144", "Люкcемб".encode("iso8859_5"), "Люкcемб"),
        ("ISO_IR 148", "Çavuşoğlu".encode("iso8859_9"), "Çavuşoğlu"),
        ("ISO_IR 166", "นามสกุล".encode("tis_620"), "นามสกุล"),
        ("ISO_IR 203", "Œuvre€".encode("iso8859_15"), "Œuvre€"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ".encode("shift_jis"), "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=" + japanese("山田^太郎") + b"=" + japanese("やまだ^たろう"),
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ".encode("shift_jis") + b"=" + japanese("山田^太郎").replace(b"(B", b"(J"),
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        ("\\ISO 2022 IR 87", b"Haru=" + japanese("春子"), "Haru=春子"),  # whose bytes hold = and ^
        ("\\ISO 2022 IR 87\\ISO 2022 IR 159", b"X=" + "丂丄".encode("iso2022_jp_2"), "X=丂丄"),
        ("\\ISO 2022 IR 13", b"X=" + ESC + b")I" + "ﾔﾏﾀﾞ".encode("shift_jis"), "X=ﾔﾏﾀﾞ"),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=" + korean("洪^吉洞") + b"=" + korean("홍^길동"),
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        ("\\ISO 2022 IR 149", b"Hong=" + ESC + b"$)C" + "홍^길동".encode("euc_kr"), "Hong=홍^길동"),  # said once
        ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=" + chinese("张^小东") + b"=", "Zhang^XiaoDong=张^小东"),
        ("ISO 2022 IR 58", b"Ce=" + chinese("测^试"), "Ce=测^试"),
        ("ISO 2022 IR 6\\ISO 2022 IR 58", b"Ce=" + chinese("测^试"), "Ce=测^试"),
        ("ISO_IR 192", b"Ce=" + chinese("测^试"), "Ce=测^试"),  # the escape sequences say what it is
        ("", b"Ce=" + chinese("测^试"), "Ce=测^试"),
        ("", b"X=" + japanese("春子"), "X=春子"),
        ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        ("GBK", "X=\u951d\u4e97".encode("gbk"), "X=\u951d\u4e97"),  # whose bytes hold a backslash
        ("ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東"),
        (
            "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126",
            "Jérôme".encode("latin_1")
            + b"="
            + ESC
            + b"-L"
            + "Люк".encode("iso8859_5")
            + b"^"
            + ESC
            + b"-F"
            + "Διον".encode("iso8859_7"),
            "Jérôme=Люк^Διον",
        ),
        ("ISO 2022 IR 100\\ISO 2022 IR 203", b"X=" + ESC + b"-b" + "Œ".encode("iso8859_15"), "X=Œ"),
    ],
)
def test_names_in_every_character_set_come_through(charset: str, stored: bytes, name: str) -> None:
    values = {"PatientName": stored} | ({"SpecificCharacterSet": charset.encode()} if charset else {})
    copy, left_out = copy_patient_and_study(header_of(values))
    assert not left_out
    copy.SpecificCharacterSet = "ISO_IR 192"
    out = BytesIO()
    copy.save_as(out, implicit_vr=False, little_endian=True)
    assert str(pydicom.dcmread(BytesIO(out.getvalue()), force=True).PatientName) == name


def test_text_of_other_elements_is_decoded_alike_those_in_sequences_in_the_set_around_them() -> None:
    text = b"A\\" + chinese("测试")
    within = struct.pack("<HHL", 0x0010, 0x0020, len(text)) + text
    item_of = struct.pack("<HHL", 0xFFFE, 0xE000, len(within)) + within
    header = header_of(
        {"SpecificCharacterSet": b"\\ISO 2022 IR 58", "PatientComments": text, "OtherPatientIDsSequence": item_of}
    )
    copy, left_out = copy_patient_and_study(header)
    assert not left_out
    assert copy.PatientComments == "A\\测试"
    assert list(copy.OtherPatientIDsSequence[0].PatientID) == ["A", "测试"]


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence:UserWarning")
def test_a_name_in_a_set_that_nobody_knows_is_left_out() -> None:
    copy, left_out = copy_patient_and_study(header_of({"PatientName": b"X=" + ESC + b"$)Z\xb2\xe2"}))
    assert left_out
    assert not copy.PatientName


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
