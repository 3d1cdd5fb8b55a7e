from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from service.dicom_results.options import DEFAULT_KINDS, KINDS, Kind, Options
from service.dicom_results.results import Results, make_results
from service.series.reading import read_series
from tests.dicom_writers import classic_mr, enhanced_mr, saved
from tests.service.dicom_results.answers import SOURCES, answer, answer_for, answer_to, images

HELD_BY = {
    "report": uid.Comprehensive3DSRStorage,
    "parametric_map": uid.ParametricMapStorage,
    "segmentation": uid.SegmentationStorage,
    "secondary_capture": uid.SecondaryCaptureImageStorage,
    "presentation": uid.AdvancedBlendingPresentationStateStorage,
}
PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
)


@cache
def results(source: str) -> Results:
    return make_results(answer(source), KINDS)


def of_kind(found: Results, kind: Kind) -> list[Dataset]:
    return [ds for ds in found.objects if ds.SOPClassUID == HELD_BY[kind]]


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([name, *map(str, arguments)], capture_output=True, text=True, check=False, errors="replace")


def written(objects: list[Dataset], folder: Path) -> list[Path]:
    paths = [folder / f"{index}.dcm" for index in range(len(objects))]
    for path, ds in zip(paths, objects, strict=True):
        path.write_bytes(saved(ds))
    return paths


def errors_in(path: Path) -> list[str]:
    said = tool("dciodvfy", path)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("Error", "Abort"))]


@pytest.mark.parametrize("source", SOURCES)
def test_every_object_passes_dciodvfy(source: str, tmp_path: Path) -> None:
    for path in written(results(source).objects, tmp_path):
        assert errors_in(path) == []


def test_dciodvfy_would_find_an_error(tmp_path: Path) -> None:
    ds = pydicom.dcmread(BytesIO(saved(of_kind(results("classic"), "parametric_map")[0])))
    del ds.ContentLabel
    assert errors_in(written([ds], tmp_path)[0])


@pytest.mark.parametrize("source", SOURCES)
def test_every_object_is_read_by_dcmtk(source: str, tmp_path: Path) -> None:
    for path in written(results(source).objects, tmp_path):
        said = tool("dcmdump", path)
        assert (said.returncode, said.stderr) == (0, "")


def test_source_and_results_agree_on_what_they_are_about(tmp_path: Path) -> None:
    source = classic_mr(images(), window=(128, 256))
    found = make_results(answer_for(source), KINDS)
    said = tool("dcentvfy", *written([*source, *found.objects], tmp_path))
    assert not [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("source", SOURCES)
def test_patient_and_study_are_the_source_s(source: str) -> None:
    header = answer(source).series.slices[0].header
    for ds in results(source).objects:
        assert [ds.get(key) or "" for key in PATIENT_AND_STUDY] == [header.get(key) or "" for key in PATIENT_AND_STUDY]


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_is_made_or_its_absence_is_explained(source: str) -> None:
    found = results(source)
    made = {kind for kind in KINDS if of_kind(found, kind)}
    left_out = {"parametric_map", "presentation"} if source.startswith("nowhere") else set()
    assert made == set(KINDS) - left_out
    assert len(found.notes) == len(left_out)
    assert all("frame of reference" in note for note in found.notes)


@pytest.mark.parametrize("source", ["classic", "enhanced, a frame left out", "nowhere"])
def test_the_same_again_is_the_same_to_the_byte(source: str) -> None:
    again = make_results(SOURCES[source](), KINDS)
    assert [saved(ds) for ds in again.objects] == [saved(ds) for ds in results(source).objects]


def test_names_do_not_depend_on_what_else_is_made_nor_on_the_values() -> None:
    one = answer("classic")
    alone = make_results(replace(one, saliency=one.saliency + np.float32(1e-6)), ["segmentation"])
    assert [ds.SOPInstanceUID for ds in alone.objects] == [
        ds.SOPInstanceUID for ds in of_kind(results("classic"), "segmentation")
    ]


def test_another_model_method_option_or_slice_gives_other_names() -> None:
    one = answer("classic")
    others = [
        (one, Options()),
        (replace(one, method="layercam"), Options()),
        (replace(one, manifest=one.manifest.model_copy(update={"version": "1.0.1"})), Options()),
        (replace(one, manifest=one.manifest.model_copy(update={"files": {"model.onnx": "0" * 64}})), Options()),
        (one, Options(segment_from=0.4)),
        (answer("classic, one slice"), Options()),
    ]
    made = [make_results(each, ["report"], options).objects[0] for each, options in others]
    assert len({ds.SOPInstanceUID for ds in made}) == len({ds.SeriesInstanceUID for ds in made}) == len(others)


def test_uids_are_derived_from_uuids_and_each_kind_has_a_series() -> None:
    objects = results("classic").objects
    assert len({ds.SOPInstanceUID for ds in objects}) == len(objects)
    series = {(ds.SOPClassUID, ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription) for ds in objects}
    assert len(series) == len(KINDS)
    assert all(uid.UID(one).is_valid and one.startswith("2.25.") for _, one, _, _ in series)


def test_what_is_referred_to_comes_first_and_exists() -> None:
    one, seen = answer("enhanced"), set[str]()
    seen = {str(each.header.SOPInstanceUID) for each in one.series.slices}
    for ds in results("enhanced").objects:
        assert references(ds) <= seen
        seen.add(str(ds.SOPInstanceUID))


def references(ds: Dataset) -> set[str]:
    return {str(element.value) for element in ds.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def test_the_source_is_referred_to_by_every_object() -> None:
    sources = {str(each.header.SOPInstanceUID) for each in answer("classic").series.slices}
    for ds in results("classic").objects:
        found = references(ds) & sources
        assert len(found) == (1 if ds.SOPClassUID == HELD_BY["secondary_capture"] else len(sources))


def test_objects_say_who_made_them_when_and_that_it_is_research() -> None:
    for ds in results("classic").objects:
        acquisition, processing = ds.ContributingEquipmentSequence
        assert acquisition.Manufacturer == "Synthetic"
        assert processing.ManufacturerModelName == "brain-mri-resnet50"
        assert "Research use only" in processing.ContributionDescription
        assert ds.SeriesDescription.startswith("AI research")
        assert (ds.SeriesDate, ds.SeriesTime) == ("20240117", "101530")
        assert "InstanceCreationDate" not in ds


def test_objects_are_independent_of_each_other() -> None:
    first, second, *_ = make_results(answer("classic"), KINDS).objects
    first.PatientName = "Somebody^Else"
    assert second.PatientName == "Subject^Synthetic"


def test_defaults_are_made_without_being_asked_for() -> None:
    found = make_results(answer("classic"))
    assert {kind for kind in KINDS if of_kind(found, kind)} == set(DEFAULT_KINDS)


def test_a_presentation_state_brings_the_map_that_it_refers_to() -> None:
    found = make_results(answer("classic"), ["presentation"])
    assert [ds.SOPClassUID for ds in found.objects] == [HELD_BY["parametric_map"], HELD_BY["presentation"]]


def test_nothing_positive_is_not_segmented_but_all_else_is_valid(tmp_path: Path) -> None:
    found = make_results(answer_for(classic_mr(images(2), "negative"), shift=-20), KINDS)
    assert not of_kind(found, "segmentation")
    assert found.notes == ("no evidence is positive: there is nothing to segment",)
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_without_the_names_of_the_source_nothing_can_be_made(keyword: str) -> None:
    series = classic_mr(images(1), "nameless", **{keyword: None})
    found = make_results(answer_for(series), KINDS)
    assert found.objects == []
    assert "UID" in found.notes[0]


BROKEN = {
    "PatientAge": "42",
    "PatientSex": "female",
    "PatientBirthDate": "1.1.1960",
    "PatientWeight": "75.12345678901234567",
    "StudyTime": "noon",
    "PatientName": "Müller^Jürgen",
    "StudyDescription": "x" * 80,
    "PatientIdentityRemoved": "YES",
    "AccessionNumber": None,
    "ContentDate": None,
    "SpecificCharacterSet": "ISO_IR 100",
    "Manufacturer": None,
    "SeriesNumber": None,
    "SliceThickness": None,
}


@pytest.mark.filterwarnings("ignore:Invalid value|The value length:UserWarning")
def test_values_that_are_not_valid_are_not_repeated(tmp_path: Path) -> None:
    found = make_results(answer_for(classic_mr(images(2), "broken", **BROKEN)), KINDS)
    assert found.notes == (
        "values of the source's patient or study that are not valid were not copied",
        "slice thickness is not known: the distance between slices, or that between rows, stands for it",
    )
    for path in written(found.objects, tmp_path):
        assert not errors_in(path)
        ds = pydicom.dcmread(path)
        assert "PatientAge" not in ds
        assert (ds.PatientSex, ds.PatientBirthDate, ds.StudyTime) == ("", "", "")
        assert (ds.SpecificCharacterSet, str(ds.PatientName)) == ("ISO_IR 192", "Müller^Jürgen")


def test_a_source_without_any_date_gives_a_fixed_one_and_a_note() -> None:
    dates = dict.fromkeys(("ContentDate", "AcquisitionDate", "SeriesDate", "StudyDate"))
    found = make_results(answer_for(classic_mr(images(1), "undated", **dates)), ["report"])
    assert found.objects[0].ContentDate == "19000101"
    assert any("no date" in note for note in found.notes)


@pytest.mark.parametrize("side", ["R", "B", ""])
@pytest.mark.parametrize("body_part", ["BRAIN", "RETINA", "TOE", "", "NO\\SUCH"])
def test_body_part_and_side_are_valid_together(side: str, body_part: str, tmp_path: Path) -> None:
    one = answer("classic, one slice")
    found = make_results(replace(one, series=replace(one.series, laterality=side, body_part=body_part)), KINDS)
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))
    (capture,) = of_kind(found, "secondary_capture")
    assert capture.get("Laterality") == (None if body_part == "BRAIN" else "R" if side == "R" else "")
    assert capture.get("BodyPartExamined") == (body_part if body_part in ("BRAIN", "RETINA") else None)


def test_lossy_sources_stay_marked_and_what_is_burned_in_too(tmp_path: Path) -> None:
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5", "BurnedInAnnotation": "YES"}
    lossy["LossyImageCompressionMethod"] = "ISO_10918_1"
    found = make_results(answer_for(classic_mr(images(1), "lossy", **lossy)), KINDS)
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))
    for kind in ("parametric_map", "segmentation", "secondary_capture"):
        assert of_kind(found, kind)[0].LossyImageCompression == "01"
    assert of_kind(found, "secondary_capture")[0].BurnedInAnnotation == "YES"
    (clean,) = of_kind(results("classic, one slice"), "secondary_capture")
    assert "LossyImageCompressionRatio" not in clean


def test_a_class_that_highdicom_does_not_know_is_referred_to_all_the_same(tmp_path: Path) -> None:
    private = "1.2.3.4.5"
    found = make_results(answer_for(classic_mr(images(2), "private", SOPClassUID=private)), KINDS)
    assert len(of_kind(found, "report")) == 1
    classes = {e.value for ds in found.objects for e in ds.iterall() if e.keyword == "ReferencedSOPClassUID"}
    assert private in classes
    assert uid.SecondaryCaptureImageStorage not in classes
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))


def test_frames_of_a_class_that_has_none_are_not_named(tmp_path: Path) -> None:
    source = enhanced_mr(images(2), "frames", SOPClassUID=uid.SecondaryCaptureImageStorage)
    found = make_results(answer_for([source]), KINDS)
    named = [e for ds in found.objects for e in ds.iterall() if e.keyword == "ReferencedFrameNumber"]
    assert not named
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))


def test_colour_sources_are_blended_as_they_are(tmp_path: Path) -> None:
    series = classic_mr(images(2), "colour")
    for ds in series:
        rgb = np.repeat(np.frombuffer(ds.PixelData, np.uint16).astype(np.uint8), 3)
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = rgb.tobytes()
        ds["PixelData"].VR = "OB"
    found = make_results(answer_for(series), KINDS)
    below, above = of_kind(found, "presentation")[0].AdvancedBlendingSequence
    assert "PaletteColorLookupTableSequence" not in below
    assert "PaletteColorLookupTableSequence" in above
    assert all(not errors_in(path) for path in written(found.objects, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        "rtdose.dcm",
        "SC_rgb_rle_2frame.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",
    ],
)
def test_results_of_real_files_pass_dciodvfy(name: str, tmp_path: Path) -> None:
    (series,) = read_series([Path(str(get_testdata_file(name, download=False))).read_bytes()])
    found = make_results(answer_to(series), KINDS)
    one_of_each = {str(ds.SOPClassUID): ds for ds in found.objects}
    assert len(one_of_each) >= 3
    assert all(not errors_in(each) for each in written(list(one_of_each.values()), tmp_path))
