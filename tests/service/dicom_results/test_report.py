from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.sr import Comprehensive3DSR, srread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from service.assessment import Assessment
from service.deidentify import deidentify
from service.dicom_results.options import KINDS
from service.dicom_results.report import report_texts
from service.dicom_results.results import make_results
from service.series.answer import SeriesAnswer
from tests.dicom_writers import saved
from tests.service.dicom_results.answers import SOURCES, answer


@cache
def report_of(source: str) -> bytes:
    (ds,) = (ds for ds in make_results(answer(source), KINDS).objects if ds.SOPClassUID == Comprehensive3DSRStorage)
    return saved(ds)


def read(source: str) -> Comprehensive3DSR:
    return srread(BytesIO(report_of(source)))


@pytest.mark.parametrize("source", SOURCES)
def test_dcmtk_prints_it(source: str, tmp_path: Path) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed")
    path = tmp_path / "report.dcm"
    path.write_bytes(report_of(source))
    said = subprocess.run(["dsrdump", path], capture_output=True, check=False)
    printed = said.stdout.decode(errors="replace")
    assert said.returncode == 0, said.stderr
    assert "Imaging Measurement Report" in printed
    assert f'"Algorithm Name")="{answer(source).manifest.id}"' in printed
    assert "Research use only" in printed


@pytest.mark.parametrize("source", SOURCES)
def test_findings_have_presence_and_probabilities(source: str) -> None:
    one = answer(source)
    *findings, classes = read(source).content.get_image_measurement_groups()
    assert len(findings) == len(one.findings)
    for group, finding in zip(findings, one.findings, strict=True):
        (presence,) = (each for each in group.get_qualitative_evaluations() if each.name.meaning == "Presence")
        assert presence.value.meaning == ("Present" if finding.present else "Absent")
        pooled, *of_slices = group.get_measurements()
        assert pooled.value == pytest.approx(finding.probability, abs=1e-5)
        assert pooled.method.meaning == "Pooled over the series"
        wanted = [
            next(f.probability for f in one.slices[i].prediction.findings if f.name == finding.name)
            for i in finding.carriers
        ]
        assert [each.value for each in of_slices] == pytest.approx(wanted, abs=1e-5)
        for each, index in zip(of_slices, finding.carriers, strict=True):
            assert_names(each.referenced_images[0], one.series.slices[index].header, one.series.slices[index].number)
    assert [each.value for each in classes.get_measurements()] == pytest.approx(
        list(one.probabilities.values()), abs=1e-5
    )


def assert_names(item: Dataset, header: Dataset, number: int) -> None:
    reference = item.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == header.SOPClassUID
    assert reference.get("ReferencedFrameNumber") == (number if "NumberOfFrames" in header else None)


def test_codes_are_the_model_s_or_private_ones_that_say_so() -> None:
    brain, retina = read("classic"), read("tomography")
    assert brain.content.get_image_measurement_groups()[0].finding_type.scheme_designator == "SCT"
    assert retina.content.get_image_measurement_groups()[0].finding_type.scheme_designator == "99RADIOLUCENT"
    assert retina.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99RADIOLUCENT"


def test_the_most_probable_class_is_named_once() -> None:
    one = answer("classic")
    classes = read("classic").content.get_image_measurement_groups()[-1]
    (chosen,) = (each for each in classes.get_qualitative_evaluations() if "Most probable" in each.name.meaning)
    label = next(label for label in one.manifest.labels if label.name == one.label)
    assert chosen.value.meaning == (label.code.meaning if label.code else label.display)
    assert classes.finding_type is None


def test_the_eye_is_named() -> None:
    (site,) = read("left eye").content.get_image_measurement_groups()[0].finding_sites
    assert (site.value.meaning, site.laterality.meaning) == ("Retina", "Left")


def test_it_refers_to_the_maps_that_were_made() -> None:
    group = read("classic").content.get_image_measurement_groups()[0]
    kinds = {
        item.ReferencedSOPSequence[0].ReferencedSOPClassUID.name
        for item in group[0].ContentSequence
        if item.ValueType == "IMAGE" and item.ConceptNameCodeSequence[0].CodeMeaning.endswith("class activation")
    }
    assert kinds == {"Parametric Map Storage", "Segmentation Storage"}


def test_evidence_lists_every_instance_once() -> None:
    ds = read("enhanced")
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    listed = [i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence]
    assert len(listed) == len(set(listed)) == 3
    assert study.StudyInstanceUID == ds.StudyInstanceUID


def test_alone_it_refers_to_the_source_only() -> None:
    (ds,) = make_results(answer("classic"), ["report"]).objects
    referred = {e.value for e in ds.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
    assert referred == {one.header.SOPInstanceUID for one in answer("classic").series.slices}


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        ("present", ("52101004", "SCT", "Present")),
        ("absent", ("2667000", "SCT", "Absent")),
        ("not decided", ("373068000", "SCT", "Undetermined")),
        ("not assessed", ("373121007", "SCT", "Not Evaluated")),
    ],
)
def test_every_decision_has_a_code(decision: str, code: tuple[str, str, str]) -> None:
    one = answer("classic")
    decided = replace(one, findings=tuple(replace(each, decision=decision, carriers=()) for each in one.findings))
    assert said_in(decided, "Presence") == [code]


def said_in(one: SeriesAnswer, name: str) -> list[tuple[str, str, str]]:
    """Codes of the qualitative evaluations of that name."""
    (ds,) = make_results(one, ["report"]).objects
    return [
        (each.value.value, each.value.scheme_designator, each.value.meaning)
        for group in srread(BytesIO(saved(ds))).content.get_image_measurement_groups()
        for each in group.get_qualitative_evaluations()
        if each.name.meaning == name
    ]


@pytest.mark.parametrize(
    ("assessment", "words"),
    [
        (Assessment("no", ("a knee",), type_assessed=False), "Not assessable: a knee"),
        (Assessment("doubtful", ("type not assessed: blurred",), type_assessed=False), "Doubtful: type not assessed"),
    ],
)
def test_what_is_not_assessed_is_named_nowhere_and_says_why(assessment: Assessment, words: str) -> None:
    one = replace(answer("classic"), assessment=assessment, label="glioma")
    assert said_in(one, "Most probable class") == [("373121007", "SCT", "Not Evaluated")]
    assert said_in(replace(one, assessment=Assessment()), "Most probable class")[0][2] != "Not Evaluated"
    (ds,) = make_results(one, ["report"]).objects
    assert words.encode() in saved(ds)
    assert words.encode() in saved(deidentify(ds, b"0123456789abcdef", report_texts(one)))


def test_nobody_has_verified_it() -> None:
    ds = read("classic")
    assert (ds.VerificationFlag, ds.PreliminaryFlag, ds.CompletionFlag) == ("UNVERIFIED", "PRELIMINARY", "COMPLETE")


def test_a_finding_that_nothing_carries_refers_to_all_slices() -> None:
    one = answer("classic")
    absent = replace(one, findings=tuple(replace(each, decision="absent", carriers=()) for each in one.findings))
    (ds,) = make_results(absent, ["report"]).objects
    group = srread(BytesIO(saved(ds))).content.get_image_measurement_groups()[0]
    assert len(group.source_images) == len(one.slices)
    assert len(group.get_measurements()) == 1
