"""The shipped bundles, the documents about them, and the README's command: what a stranger meets first."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from export.card import model_card, segmentation_card
from export.golden import phantoms
from service.api import make_api
from service.bundle import read_bundle
from service.engine import check_golden, open_engine
from service.explainers import METHODS
from service.pipeline import Pipeline
from service.segmenter import open_segmenter
from service.settings import SHIPPED_MODELS, Settings
from training.compare import FIGURES, compare, load_figures
from training.datasets.split import Split
from training.models import build
from training.report import load_report
from training.segmentation.report import load_report as load_segmentation
from training.segmentation.report import load_scores

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {"brain-mri-resnet50": "brain-mri.json", "retinal-oct-oculusnet": "oct-sources.json"}
NAMES = sorted(SPLITS)
UNET = "brain-mri-unet"
BUDGETS = {"shap": 20, "kernelshap": 70, "lime": 16, "rise": 16, "occlusion": 16}


@pytest.fixture(scope="module")
def client():
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(device="cpu"))
    with TestClient(api) as client:
        yield client


def test_all_models_are_shipped():
    assert sorted(path.name for path in SHIPPED_MODELS.iterdir()) == sorted([*NAMES, UNET])


def test_the_segmentation_bundle_is_whole_and_states_what_the_committed_report_measured():
    manifest = open_segmenter(SHIPPED_MODELS / UNET, device="cpu").manifest  # verifies digests and the golden sample
    report = load_segmentation(ROOT / "docs" / "reports" / UNET)
    assert manifest.id == UNET
    assert manifest.provenance.checkpoint_sha256 == report.checkpoint_digest
    assert manifest.operating_point.threshold == report.threshold
    assert {n: v.model_dump() for n, v in manifest.evaluation.metrics.items()} == {
        n: v.model_dump() for n, v in report.metrics.items()
    }
    split = Split.load(ROOT / "training" / "splits" / "brain-mri.json")
    assert manifest.provenance.split_sha256 == report.split_digest == split.digest()
    assert report.outlined_images + report.empty_images == len(split.test) == manifest.evaluation.images
    scores = load_scores(ROOT / "docs" / "reports" / UNET)
    assert np.mean([s.dice for s in scores if s.dice is not None]) == pytest.approx(
        report.metrics["dice"].value, abs=1e-6
    )
    assert all(check.deviation <= check.tolerance for check in manifest.parity)
    files = {file: digest for file, digest in manifest.files.items() if file != "MODEL_CARD.md"}
    card = segmentation_card(manifest.model_copy(update={"files": files}))
    assert (SHIPPED_MODELS / UNET / "MODEL_CARD.md").read_text() == card
    assert sum(path.stat().st_size for path in (SHIPPED_MODELS / UNET).iterdir()) < 10 * 2**20


def test_an_outline_is_answered_for_the_image_of_the_readme(client):
    content = (ROOT / "docs" / "images" / "mni152-slice.png").read_bytes()
    answer = client.post(
        "/v1/segment", data={"model": UNET, "mask": "true"}, files=[("images", ("a.png", content, "image/png"))]
    )
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert tuple(result["size"]) == Image.open(BytesIO(content)).size
    with Image.open(BytesIO(base64.b64decode(result["mask"]))) as mask:
        assert (np.asarray(mask) > 0).sum() == result["area_pixels"]
    assert result["present"] == bool(result["contours"]) == (result["peak"] >= result["threshold"])


def test_the_tables_in_the_document_are_those_of_the_committed_reports():
    document = (ROOT / "docs" / "comparison-models.md").read_text()
    assert compare(ROOT / "docs" / "reports", load_figures(FIGURES)) in document


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_is_whole_and_computes_here_what_it_did_there(name):
    bundle = read_bundle(SHIPPED_MODELS / name)
    assert bundle.manifest.id == name
    assert check_golden(bundle, open_engine(bundle, device="cpu")) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_states_what_the_committed_report_measured(name):
    manifest = read_bundle(SHIPPED_MODELS / name).manifest
    report = load_report(ROOT / "docs" / "reports" / name)
    assert manifest.provenance.checkpoint_sha256 == report.checkpoint_digest
    assert report.part == "test"
    for metric, estimate in report.metrics.items():
        assert manifest.evaluation.metrics[metric].model_dump() == estimate.model_dump()
    assert manifest.evaluation.shortcut.keys() == report.shortcut.keys()
    split = Split.load(ROOT / "training" / "splits" / SPLITS[name])
    assert manifest.provenance.split_sha256 == report.split_digest == split.digest()
    of_study = [name for name in split.test if not name.startswith("multi/")]
    assert len(of_study) == report.images == manifest.evaluation.images


@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_the_export_passed_on_real_images(name):
    manifest = read_bundle(SHIPPED_MODELS / name).manifest
    tolerances = {check.check: check.tolerance for check in manifest.parity}
    assert tolerances["logits_equal_torch"] <= 1e-4
    assert tolerances["gradcam_equals_pytorch_grad_cam"] <= 1e-4
    assert tolerances["completeness"] <= 1e-3
    assert all(check.deviation <= check.tolerance for check in manifest.parity)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_generated_from_the_manifest(name):
    manifest = read_bundle(SHIPPED_MODELS / name).manifest
    files = {file: digest for file, digest in manifest.files.items() if file != "MODEL_CARD.md"}
    assert (SHIPPED_MODELS / name / "MODEL_CARD.md").read_text() == model_card(
        manifest.model_copy(update={"files": files})
    )


@pytest.mark.parametrize(
    ("model", "picture", "finding", "assessable"),
    [
        ("brain-mri-resnet50", "mni152-slice.png", "tumor", "yes"),
        ("retinal-oct-oculusnet", "oct-phantom.png", "retinal_disease", "no"),  # a drawing
    ],
)
def test_the_images_of_the_readme_are_answered_with_evidence(client, model, picture, finding, assessable):
    content = (ROOT / "docs" / "images" / picture).read_bytes()
    answer = client.post(
        "/v1/explain",
        data={"model": model, "method": "gradcam", "target": "all", "overlay": "true"},
        files=[("images", (picture, content, "image/png"))],
    )
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    manifest = read_bundle(SHIPPED_MODELS / model).manifest
    assert sum(result["probabilities"].values()) == pytest.approx(1)
    assert finding in result["findings"]
    assert result["assessable"] == assessable
    assert (result["warnings"] == []) == (assessable == "yes")
    maps = {e["target"]: np.array(e["saliency"]) for e in result["explanations"]}
    assert tuple(maps) == manifest.class_names
    logits = np.array([maps[n].mean() + b for n, b in zip(manifest.class_names, manifest.graph.bias, strict=True)])
    scaled = np.exp((logits - logits.max()) / manifest.temperature)
    np.testing.assert_allclose(scaled / scaled.sum(), list(result["probabilities"].values()), atol=1e-4)
    width, height = Image.open(BytesIO(content)).size
    with Image.open(BytesIO(base64.b64decode(result["explanations"][0]["overlay"]))) as overlay:
        assert overlay.size[0] >= width
        assert overlay.size[1] > height


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(
    ("model", "picture"), [("brain-mri-resnet50", "mni152-slice.png"), ("retinal-oct-oculusnet", "oct-phantom.png")]
)
def test_every_method_answers_over_http(client, model, picture, method):
    content = (ROOT / "docs" / "images" / picture).read_bytes()
    budget = {"budget": str(BUDGETS.get(method, 4))} if METHODS[method].budget else {}
    fields = {"model": model, "method": method, "overlay": "true", "deadline_ms": "600000"} | budget
    answer = client.post("/v1/explain", data=fields, files=[("images", (picture, content, "image/png"))])
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    (found,) = result["explanations"]
    assert found["method"] == method
    assert found["target"] == result["label"]
    assert np.array(found["saliency"]).shape == tuple(found["shape"])
    assert np.isfinite(found["saliency"]).all()
    assert found["evaluations"] <= 4 + BUDGETS.get(method, 4)
    assert base64.b64decode(found["overlay"]).startswith(b"\x89PNG")
    manifest = read_bundle(SHIPPED_MODELS / model).manifest
    (described,) = [e for e in manifest.explanations if e.method == method]
    assert found["quality"].keys() == described.quality.keys()
    assert described.quality  # it was measured


@pytest.mark.parametrize("name", NAMES)
def test_models_say_what_each_method_is_and_costs(client, name):
    (described,) = [m for m in client.get("/v1/models").json()["models"] if m["id"] == name]
    methods = {m["method"]: m for m in described["explanations"]}
    assert set(methods) == set(METHODS)
    assert described["default_explanation"] in methods
    assert methods["gradcam"]["exact"]
    assert methods["gradcam"]["tier"] == "inline"
    assert not methods["shap"]["exact"]
    assert not methods["eigencam"]["contrast"]
    assert all(m["typical_ms"] > 0 for m in methods.values())
    assert methods["rise"]["typical_ms"] > 100 * methods["gradcam"]["typical_ms"]


def test_why_one_class_and_not_another(client):
    content = (ROOT / "docs" / "images" / "mni152-slice.png").read_bytes()
    fields = {"model": "brain-mri-resnet50", "method": "gradcam", "target": "glioma"}

    def ask(**more: str):
        answer = client.post("/v1/explain", data=fields | more, files=[("images", ("a.png", content, "image/png"))])
        (result,) = answer.json()["results"]
        return result

    one, other = (np.array(ask(target=t)["explanations"][0]["saliency"]) for t in ("glioma", "meningioma"))
    contrast = ask(against="meningioma")["explanations"][0]
    assert contrast["against"] == "meningioma"
    np.testing.assert_allclose(contrast["saliency"], one - other, atol=1e-4)
    refused = ask(target="predicted", against="no_tumor")  # which is what it predicts
    assert refused["status"] == "failed"
    assert refused["error"]["type"].endswith("unknown-target")


def test_what_would_take_too_long_must_be_a_job(client):
    content = (ROOT / "docs" / "images" / "oct-phantom.png").read_bytes()
    fields = {"model": "retinal-oct-oculusnet", "method": "rise", "budget": "100000"}
    answer = client.post("/v1/explain", data=fields, files=[("images", ("a.png", content, "image/png"))])
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("too-slow")
    assert "/v1/explanations" in answer.json()["detail"]
    ended = client.post(
        "/v1/explain", data=fields | {"deadline_ms": "3000"}, files=[("images", ("a.png", content, "image/png"))]
    )
    (result,) = ended.json()["results"]
    assert result["explanations"][0]["stopped"] == "deadline"


def test_a_second_image_does_not_stand_aside_for_predictions(client, monkeypatch):
    monkeypatch.setattr("service.scheduling.PATIENCE", 600.0)
    content = (ROOT / "docs" / "images" / "oct-phantom.png").read_bytes()
    fields = {"model": "retinal-oct-oculusnet", "method": "fastshap"}

    def ask():
        return client.post("/v1/explain", data=fields, files=[("images", ("a.png", content, "image/png"))])

    with client.app.state.pipeline.on_its_way(), ThreadPoolExecutor(1) as threads:
        assert threads.submit(ask).result(120).json()["results"][0]["status"] == "ok"


@pytest.mark.parametrize("name", NAMES)
def test_a_quantised_graph_was_let_through_by_its_gate_and_answers_when_asked_for(name):
    bundle = read_bundle(SHIPPED_MODELS / name)
    profile = bundle.manifest.profiles["int8"]
    assert profile.images == bundle.manifest.evaluation.images
    assert profile.accuracy_full - profile.accuracy <= 0.005
    assert profile.labels_agree >= 0.99
    assert profile.map_correlation >= 0.98
    assert profile.accuracy_full == pytest.approx(bundle.manifest.evaluation.metrics["accuracy"].value)
    engine = open_engine(bundle, device="cpu", precision="auto")
    assert engine.precision in {"int8", "fp32"}  # float32 where this processor's instructions saturate
    if engine.precision == "int8":
        images = phantoms(224, 9)
        full = open_engine(bundle, device="cpu")
        found, expected = engine.run(images).logits, full.run(images).logits
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("name", ["brain-mri-resnet50", "retinal-oct-oculusnet"])
def test_a_float16_graph_was_let_through_by_its_gate_and_answers_when_asked_for(name):
    bundle = read_bundle(SHIPPED_MODELS / name)
    profile = bundle.manifest.profiles["fp16"]
    assert profile.images == bundle.manifest.evaluation.images
    assert profile.accuracy_full - profile.accuracy <= 0.005
    assert profile.labels_agree >= 0.99
    assert profile.map_correlation >= 0.98
    images = phantoms(224, 9)
    half, full = (open_engine(bundle, device="cpu", precision=p).run(images) for p in ("fp16", "fp32"))
    np.testing.assert_allclose(half.logits, full.logits, atol=0.02 * np.abs(full.logits).max())


def test_an_average_healthy_brain_has_no_tumour_and_the_readme_shows_its_overlay(client):
    content = (ROOT / "docs" / "images" / "mni152-slice.png").read_bytes()
    fields = {"model": "brain-mri-resnet50", "method": "gradcam", "overlay": "true"}
    answer = client.post("/v1/explain", data=fields, files=[("images", ("slice.png", content, "image/png"))])
    (result,) = answer.json()["results"]
    assert result["label"] == "no_tumor"
    returned = Image.open(BytesIO(base64.b64decode(result["explanations"][0]["overlay"])))
    shown = Image.open(ROOT / "docs" / "images" / "overlay.png")
    assert np.abs(np.asarray(returned, int) - np.asarray(shown, int)).mean() < 1  # other processors round differently


def test_oculusnets_layer_table_is_the_network():
    table = (ROOT / "docs" / "oculusnet.md").read_text()
    rows = [
        re.split(r" *\| *", line)[1:-1] for line in table.splitlines() if re.match(r"\| (inv|conv|neck|average)", line)
    ]
    counts = [int(row[-1].replace(",", "")) for row in rows]
    network = build("oculusnet", 4)
    modules = [network.stem, *network.stages, network.last, network.neck, network.head]
    assert counts == [sum(p.numel() for p in module.parameters()) for module in modules]
    assert f"**{sum(counts):,}**" in table


def test_paths_that_the_documents_name_exist():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
