"""One picture, stored in several legal ways, through the doors that people use."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pydicom
import pytest
from bright import SIDE, write_bundle_into
from spots import write_spots_into
from starlette.testclient import TestClient

from export.storing import Picture, Stored, plain, ways
from service.api import make_api, set_up_jobs
from service.bundle import MANIFEST
from service.pipeline import Pipeline
from service.rendering import on_frame
from service.settings import Settings
from service.types import Region

_DARK = np.random.default_rng(2).integers(10, 60, (40, 56), np.uint8)
PIXELS = _DARK.copy()
PIXELS[4:16, 6:22] = 240  # bright in the upper left corner of the anatomy
PICTURE = Picture(PIXELS, "MR", 1.0)
WAYS = ["rotated_180", "rotated_90", "mirrored", "more_rows", "more_columns", "monochrome1", "window_narrow", "padded"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_bundle_into(folder, "bright")
    write_spots_into(folder, "spots")
    for path in folder.iterdir():
        content = json.loads((path / MANIFEST).read_text())
        content["preprocessing"]["orientation"] = "patient"
        (path / MANIFEST).write_text(json.dumps(content))
    settings = Settings(
        models=folder,
        threads=1,
        device="cpu",
        jobs_database=f"sqlite:///{folder / 'jobs.sqlite'}",
        study_folder=folder / "studies",
    )
    api = make_api("test")
    api.state.pipeline = Pipeline(settings)
    set_up_jobs(api, settings)
    with TestClient(api) as client:
        yield client


def shape_of(stored: Stored) -> tuple[int, int]:
    ds = pydicom.dcmread(io.BytesIO(stored.content))
    return ds.Rows, ds.Columns


def on_picture(stored: Stored, saliency: object, region: list[float]) -> np.ndarray:
    """A map of an answer on the pixels of the picture."""
    return stored.restore(on_frame(np.array(saliency, np.float32), Region(*region), shape_of(stored)))


def explained(client, stored: Stored) -> tuple[dict, np.ndarray]:
    answer = client.post(
        "/v1/explain", data={"model": "bright", "target": "bright"}, files=[("images", ("a.dcm", stored.content))]
    )
    (result,) = answer.json()["results"]
    (found,) = result["explanations"]
    return result, on_picture(stored, found["saliency"], result["region"])


@pytest.mark.parametrize("name", WAYS)
def test_a_single_file_has_the_same_answer_and_its_map_on_the_same_anatomy(client, name):
    way = ways(1.0)[name]
    (before, shown), (after, brought_back) = explained(client, plain(PICTURE)), explained(client, way.store(PICTURE))
    assert (before["plane"], after["plane"]) == ("axial", "axial")
    assert after["label"] == before["label"]
    for label, probability in before["probabilities"].items():
        assert after["probabilities"][label] == pytest.approx(probability, abs=0.01)
    row, column = np.unravel_index(brought_back.argmax(), brought_back.shape)
    assert row < 20
    assert column < 28
    assert np.corrcoef(shown.ravel(), brought_back.ravel())[0, 1] > 0.97
    if name == "rotated_90":
        assert after["region"][2:] == before["region"][2:][::-1]


@pytest.mark.parametrize("name", ["rotated_180", "rotated_90", "mirrored"])
def test_a_series_has_its_maps_on_the_same_anatomy(client, name):
    stored = ways(1.0)[name].store(PICTURE)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("1.dcm", stored.content)
    answer = client.post(
        "/v1/studies?model=bright&target=bright", content=body.getvalue(), headers={"content-type": "application/zip"}
    )
    (series,) = answer.json()["series"]
    (one,) = series["answers"][0]["slices"]
    found = on_picture(stored, one["explanation"]["saliency"], one["region"])
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert series["plane"] == "axial"
    assert one["unseen"] == 0
    assert row < 20
    assert column < 28


@pytest.mark.parametrize("name", ["rotated_180", "rotated_90", "mirrored", "more_rows"])
def test_an_outline_lies_around_the_same_anatomy(client, name):
    areas = []
    for stored in (plain(PICTURE), ways(1.0)[name].store(PICTURE)):
        answer = client.post("/v1/segment", data={"model": "spots"}, files=[("images", ("a.dcm", stored.content))])
        (result,) = answer.json()["results"]
        inside = np.zeros(shape_of(stored), np.float32)
        for line in result["contours"]:
            columns, rows = np.array(line).T
            inside[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1] = 1
        back = stored.restore(inside) > 0.5
        rows, columns = np.nonzero(back)
        assert rows.mean() < 20
        assert columns.mean() < 28
        areas.append(result["area_mm2"])
    assert areas[1] == pytest.approx(areas[0], rel=0.15)


def test_an_image_without_a_header_says_no_plane(client):
    stored = ways(1.0)["png"].store(PICTURE)
    answer = client.post("/v1/predict", data={"model": "bright"}, files=[("images", ("a.png", stored.content))])
    (result,) = answer.json()["results"]
    assert result["plane"] is None
    assert result["unseen"] == 0
    assert result["region"][2] > SIDE
