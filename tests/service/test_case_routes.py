from __future__ import annotations

import base64
import json
import re
import zlib
from io import BytesIO

import numpy as np
import pytest
from bright import CONFORMAL, GATE, SIDE, png, write_gated_into
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from starlette.testclient import TestClient

from service import frames
from service.api import make_api
from service.bundle import MANIFEST
from service.dicomweb.multipart import Limits, read_zip
from service.frames import quantised
from service.pipeline import Pipeline
from service.schemas import RESEARCH_NOTICE
from service.series.reading import read_series
from service.settings import Settings
from tests.dicom_writers import classic_mr, saved


@pytest.fixture
def client(write_bundle):
    folder = write_bundle("bright")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["limits"] = ["This is a limit of some length that a report has to say something about."] * 60
    (folder / MANIFEST).write_text(json.dumps(manifest))
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(models=folder.parent, threads=1, device="cpu"))
    with TestClient(api, raise_server_exceptions=False) as client:
        yield client


def ask(client, route: str, content: bytes, **fields: str):
    return client.post(f"/v1/{route}", data=fields, files={"image": ("Doe^Jane.png", content)})


def values(frame: dict) -> np.ndarray:
    stored = np.frombuffer(zlib.decompress(base64.b64decode(frame["pixels"])), f"<u{frame['bits'] // 8}")
    return stored.reshape(frame["height"], frame["width"]) * frame["slope"] + frame["intercept"]


def ramp(dtype: type, rows: int = 40, columns: int = 30) -> np.ndarray:
    return np.linspace(0, np.iinfo(dtype).max, rows * columns).reshape(rows, columns).astype(dtype)


def pdf_text(content: bytes) -> str:
    streams = re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
    pages = []
    for stream in streams:
        try:
            pages.append(zlib.decompress(stream))
        except zlib.error:
            continue  # a picture
    words = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", b"\n".join(pages))
    return re.sub(r"\\([()\\])", r"\1", b" ".join(words).decode("latin-1"))


def test_eight_bits_come_back_as_they_are(client):
    (frame,) = ask(client, "frames", png(ramp(np.uint8))).json()["frames"]
    assert frame["bits"] == 8
    assert frame["window"] == [0, 255]
    assert frame["spacing"] is None
    assert np.array_equal(values(frame), ramp(np.uint8))


def test_sixteen_bits_come_back_as_they_are(client):
    buffer = BytesIO()
    Image.fromarray(ramp(np.uint16)).save(buffer, "PNG")
    (frame,) = ask(client, "frames", buffer.getvalue()).json()["frames"]
    assert frame["bits"] == 16
    assert np.array_equal(values(frame), ramp(np.uint16))
    low, high = np.percentile(ramp(np.uint16), (0.5, 99.5))
    assert frame["window"] == pytest.approx([low, high])


def test_a_dicom_frame_has_its_spacing_and_its_place_but_no_patient(client):
    (instance,) = classic_mr([ramp(np.uint16)])
    answer = ask(client, "frames", saved(instance))
    (frame,) = answer.json()["frames"]
    assert frame["spacing"] == [float(value) for value in instance.PixelSpacing]
    assert frame["modality"] == "MR"
    assert (frame["series"], frame["instance"]) == (instance.SeriesInstanceUID, instance.SOPInstanceUID)
    for said in (str(instance.PatientName), str(instance.PatientID), "Doe"):
        assert said not in answer.text


@given(arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_sixteen_bits_are_enough_for_any_value(pixels):
    stored, slope, intercept = quantised(pixels)
    back = stored * slope + intercept
    assert np.abs(back - pixels).max() <= 0.5001 * max(slope, 0) + 1e-9
    assert slope <= max(1.0, float(np.ptp(pixels.astype(np.float64))) / 65535)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"no image", "unsupported-format"), (png(ramp(np.uint8))[:60], "corrupt-image")]
)
@pytest.mark.parametrize("route", ["frames", "report"])
def test_a_file_that_is_no_image_is_refused_by_kind(client, route, content, kind):
    answer = ask(client, route, content, **({"model": "bright"} if route == "report" else {}))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:radiolucent:problem:{kind}"


@pytest.mark.parametrize("form", ["png", "dicom"])
def test_a_file_of_too_many_pixels_is_refused(client, monkeypatch, form):
    monkeypatch.setattr(frames, "MAX_PIXELS", 1000)
    content = png(ramp(np.uint8)) if form == "png" else saved(classic_mr([ramp(np.uint16)])[0])
    answer = ask(client, "frames", content)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("too-many-pixels")


def test_a_report_is_one_page_that_says_what_it_is_worth(client):
    answer = ask(client, "report", png(ramp(np.uint8, SIDE, SIDE)), model="bright", method="gradcam", target="dark")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert len(re.findall(rb"/Type /Page\b", answer.content)) == 1
    text = pdf_text(answer.content)
    graph = client.app.state.pipeline.registry.model("bright").bundle.manifest.files["model.onnx"]
    for said in (RESEARCH_NOTICE, "Evidence: gradcam for Dark", "bright 1.0.0", graph, "(continued in the model card)"):
        assert said in text
    predicted = client.post(
        "/v1/predict", data={"model": "bright"}, files={"images": ("a.png", png(ramp(np.uint8, SIDE, SIDE)))}
    ).json()["results"][0]["probabilities"]
    for probability in predicted.values():
        assert f"{probability:.1%}" in text
    assert b"Jane" not in answer.content
    assert "Jane" not in text


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"model": "nothing"}, 404, "unknown-model"),
        ({"model": "bright", "frame": "2"}, 422, "invalid-parameter"),
        ({"model": "bright", "frame": "0"}, 422, "invalid-parameter"),
        ({"model": "bright", "target": "all"}, 422, "invalid-parameter"),
        ({"model": "bright", "target": "nothing"}, 422, "unknown-target"),
        ({"model": "bright", "against": "dark"}, 422, "unknown-target"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused(client, fields, status, kind):
    answer = ask(client, "report", png(np.full((SIDE, SIDE), 255, np.uint8)), **fields)
    assert answer.status_code == status
    assert answer.json()["type"].endswith(kind)


def test_the_example_is_a_series_in_order_without_a_patient(client):
    answer = client.get("/v1/examples/series.zip")
    assert answer.content == client.get("/v1/examples/series.zip").content
    (series,) = read_series(read_zip(answer.content, Limits()))
    assert len(series.slices) == 11
    assert not series.left_out
    assert not series.notes
    assert {str(one.header.PatientName) for one in series.slices} == {""}
    sizes = [int((one.frame.pixels > 0).sum()) for one in series.slices]
    assert max(sizes) == sizes[5] > 2 * sizes[0]


@pytest.mark.parametrize(("glaring", "verdict"), [(True, "Light: not assessed"), (False, "Light: present")])
def test_a_report_says_whether_the_image_can_be_assessed(tmp_path, glaring, verdict):
    write_gated_into(tmp_path, "gated", conformal=CONFORMAL)
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(models=tmp_path, threads=1, device="cpu"))
    pixels = ramp(np.uint8, SIDE, SIDE)
    if glaring:
        pixels[2:] = 255
    with TestClient(api) as client:
        said = pdf_text(ask(client, "report", png(pixels), model="gated").content)
    assert verdict in said
    assert ("Not assessable: " + GATE["scores"][0]["reason"] in said) is glaring
    assert ("At an error rate of 10% it may be: " in said) is not glaring
