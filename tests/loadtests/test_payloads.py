from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from loadtests.bodies import bad_requests, image_body, study
from loadtests.offers import Offer, offers_of
from loadtests.payloads import bad_files, dicom_uploads, mr_series, uploads
from service.dicomweb.multipart import Limits, MultipartReader
from service.errors import BrokenUpload, UnreadableImage
from service.images.reading import read_frames


def test_png_files_are_eight_different_ones_for_each_modality():
    for files in uploads().values():
        assert len({file.content for file in files}) == len({file.name for file in files}) == 8
        assert all(file.content.startswith(b"\x89PNG") for file in files)


def test_dicom_files_are_nobodys_mr_slices():
    for file in dicom_uploads()["MR"]:
        ds = dcmread(BytesIO(file.content))
        assert (ds.Modality, str(ds.PatientName), ds.PatientID) == ("MR", "", "")
        (frame,) = read_frames(file.content, file.name)
        assert frame.pixels.shape == (512, 512)


@pytest.mark.parametrize("kind", bad_files())
def test_a_bad_file_is_refused_as_what_it_is(kind):
    file = bad_files()[kind]
    with pytest.raises(UnreadableImage) as caught:
        read_frames(file.content, file.name)
    assert caught.value.kind == kind


def test_the_series_is_one_in_geometric_order():
    body = study(25)
    reader = MultipartReader(body.kind, Limits())
    contents = list(reader.feed(body.content))
    reader.close()
    assert contents == list(mr_series()[:25])
    places = [dcmread(BytesIO(content)).ImagePositionPatient[2] for content in contents]
    assert places == sorted(set(places))
    assert len({dcmread(BytesIO(content)).SOPInstanceUID for content in mr_series()}) == 200


def test_a_broken_study_is_broken():
    *_, (path, body, problem) = bad_requests("a", "b", uploads()["MR"][0])
    assert (path, problem) == ("/v1/studies", (400, "broken-upload"))
    reader = MultipartReader(body.kind, Limits())
    list(reader.feed(body.content))
    with pytest.raises(BrokenUpload):
        reader.close()


def test_a_form_holds_model_fields_and_images():
    body = image_body("some-model", "OPT", "dicom", 7, 2, (("method", "gradcam"),))
    assert body.kind.startswith("multipart/form-data; boundary=")
    for wanted in (b"some-model", b"gradcam", uploads()["OPT"][7].content, uploads()["OPT"][0].content):
        assert wanted in body.content  # there is no DICOM of this modality


def model(task="classification", modality="MR"):
    methods = [{"method": "cam", "tier": "inline"}, {"method": "shap", "tier": "budgeted"}]
    kind = {"modalities": [modality]}
    return {"id": "m", "task": task, "kind": kind, "explanations": methods, "default_explanation": "cam"}


def test_only_classifiers_that_there_are_images_for_are_loaded():
    found = offers_of({"models": [model(), model(modality="DX"), {"task": "segmentation"}]})
    assert found == [Offer("m", "MR", {"cam": "inline", "shap": "budgeted"}, "cam")]
    assert found[0].chosen(["default", "inline", "shap", "rise"]) == ["cam", "cam", "shap"]
