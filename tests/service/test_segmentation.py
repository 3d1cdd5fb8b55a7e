from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from bright import png
from dicom_writers import classic_mr, saved
from PIL import Image
from spots import SIDE, write_manifest, write_spots_into
from starlette.testclient import TestClient

from service.api import make_api
from service.bundle import GOLDEN, MANIFEST
from service.errors import GoldenSampleMismatch
from service.examples import SEGMENT_EXAMPLE
from service.pipeline import Pipeline
from service.registry import load_models
from service.schemas import Problem, SegmentationResult
from service.segmenter import open_segmenter
from service.settings import Settings


@pytest.fixture
def client(write_bundle, tmp_path):
    folder = write_bundle("bright").parent
    write_spots_into(folder, "spots")
    application = make_api("test")
    application.state.pipeline = Pipeline(Settings(models=folder, threads=1, device="cpu"))
    with TestClient(application, raise_server_exceptions=False) as client:
        yield client


def spot(height: int = 64, width: int = 96) -> np.ndarray:
    """Dark, with a bright square of 16 x 16 pixels; the model's input has a third of the width's pixels."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[24:40, 48:64] = 255
    return pixels


def post(client, files: list[tuple[str, bytes]], route: str = "segment", **fields: str):
    return client.post(f"/v1/{route}", data=fields, files=[("images", (name, content)) for name, content in files])


def test_an_outline_lies_where_the_spot_is(client):
    answer = post(client, [("a.png", png(spot()))], model="spots", mask="true")
    assert answer.status_code == 200, answer.text
    result = SegmentationResult.model_validate(answer.json())
    (found,) = result.results
    assert found.status == "ok"
    assert (found.label, found.present, found.threshold, found.size) == ("light", True, 0.5, (96, 64))
    assert found.peak == pytest.approx(1)
    (line,) = found.contours
    x, y = np.array(line).T
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((48, 64, 24, 40), abs=1.5)
    assert found.area_mm2 is None
    mask = np.asarray(Image.open(BytesIO(base64.b64decode(found.mask or ""))))
    assert mask.shape == (64, 96)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == found.area_pixels == pytest.approx(256, rel=0.2)
    assert (mask[26:38, 50:62] == 255).all()
    assert set(result.timing_ms) == {"decode", "queue", "inference", "outline", "total"}
    assert "not a medical device" in result.notice


def test_nothing_found_is_an_answer(client):
    answer = post(client, [("a.png", png(np.full((64, 64), 9, np.uint8)))], model="spots")
    (found,) = SegmentationResult.model_validate(answer.json()).results
    assert (found.present, found.contours, found.area_pixels, found.mask) == (False, [], 0, None)


def test_the_area_of_a_dicom_file_is_in_square_millimetres(client):
    (ds,) = classic_mr([spot()])
    ds.PixelSpacing = [0.5, 0.75]
    answer = post(client, [("a.dcm", saved(ds))], model="spots")
    (found,) = SegmentationResult.model_validate(answer.json()).results
    assert found.area_mm2 == pytest.approx(found.area_pixels * 0.375)
    ds.PixelSpacing = [0.5, -0.75]
    (found,) = SegmentationResult.model_validate(post(client, [("a.dcm", saved(ds))], model="spots").json()).results
    assert found.area_mm2 is None


def test_a_broken_file_fails_alone(client):
    answer = post(client, [("a.png", png(spot())), ("doe.txt", b"no image"), ("c.png", png(spot()))], model="spots")
    assert [r["status"] for r in answer.json()["results"]] == ["ok", "failed", "ok"]
    assert answer.json()["results"][1]["error"]["type"].endswith("unsupported-format")


@pytest.mark.parametrize(
    ("route", "model", "status", "kind"),
    [
        ("segment", "bright", 422, "wrong-task"),
        ("predict", "spots", 422, "wrong-task"),
        ("explain", "spots", 422, "wrong-task"),
        ("explanations", "spots", 422, "wrong-task"),
        ("segment", "none", 404, "unknown-model"),
        ("predict", "none", 404, "unknown-model"),
    ],
)
def test_a_model_of_another_task_is_refused_by_name(client, route, model, status, kind):
    answer = post(client, [("a.png", png(spot()))], route, model=model)
    problem = Problem.model_validate(answer.json())
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem.status) == (status, status)
    assert problem.type == f"urn:radiolucent:problem:{kind}"
    if kind == "unknown-model":
        assert "bright, spots" in problem.detail


def test_too_many_images_are_refused(client):
    client.app.state.pipeline.settings = Settings(max_images=1)
    answer = post(client, [("a.png", png(spot()))] * 2, model="spots")
    assert answer.status_code == 413


def test_both_tasks_are_listed_and_ready_and_counted(client):
    models = {m["id"]: m for m in client.get("/v1/models").json()["models"]}
    assert {name: m["task"] for name, m in models.items()} == {"bright": "classification", "spots": "segmentation"}
    assert models["spots"]["grid"] == [SIDE, SIDE]
    assert models["spots"]["label"]["name"] == "light"
    assert models["spots"]["operating_point"]["threshold"] == 0.5
    post(client, [("a.png", png(spot()))], model="spots")
    from prometheus_client import REGISTRY

    labels = {"model": "spots", "method": "segment", "outcome": "ok"}
    assert (REGISTRY.get_sample_value("radiolucent_images_total", labels) or 0) >= 1


def test_the_openapi_document_holds_the_example(client):
    document = client.get("/openapi.json").json()["paths"]["/v1/segment"]["post"]
    shown = document["responses"]["200"]["content"]["application/json"]["example"]
    assert json.loads(SegmentationResult.model_validate(shown).model_dump_json()) == json.loads(
        json.dumps(SEGMENT_EXAMPLE)
    )
    assert set(document["responses"]) >= {"404", "413", "422", "500", "503"}


def test_a_golden_sample_that_is_not_reproduced_refuses_the_bundle(tmp_path):
    folder = write_spots_into(tmp_path, "spots")
    with np.load(folder / GOLDEN) as golden:
        np.savez(folder / GOLDEN, images=golden["images"], mask=golden["mask"] + 0.01)
    write_manifest(folder)
    with pytest.raises(GoldenSampleMismatch, match=r"bundle spots: the golden sample deviates by 0\.01"):
        open_segmenter(folder)
    registry = load_models(tmp_path, threads=1, device="cpu")
    assert registry.names == ()
    assert "golden sample" in registry.refused["spots"]


@pytest.mark.parametrize(("content", "words"), [("[1]", "valid dictionary"), ("{", "not JSON")])
def test_what_is_no_manifest_is_refused(tmp_path, content, words):
    folder = write_spots_into(tmp_path, "spots")
    (folder / MANIFEST).write_text(content)
    assert words in load_models(tmp_path, threads=1, device="cpu").refused["spots"]
