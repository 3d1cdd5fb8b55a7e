"""`python -m export.extend` as people use it, on a bundle that was trained and exported a moment ago."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from export.extend import main as extend
from export.golden import phantoms
from export.restore import new_head
from service.bundle import read_bundle, sha256
from service.engine import open_engine
from training.models import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def bundle_folder(exported, tmp_path_factory) -> Path:
    return copytree(exported, tmp_path_factory.mktemp("models") / exported.name)


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    monkeypatch.setattr("training.models.shapley_head.GRID", 4)  # inputs of 64 pixels have 4 x 4 cells


@pytest.fixture
def words(bundle_folder, finished_run, tmp_path) -> list[str]:
    root = finished_run.parent
    return [*map(str, (bundle_folder, root / "config.toml", root / "data")), "--cache", str(tmp_path / "cache")]


def test_an_explainer_a_float16_graph_and_the_measured_quality_are_added(bundle_folder, words, tmp_path):
    before = read_bundle(bundle_folder)
    images = phantoms(64, 5)
    expected = open_engine(before, device="cpu").run(images)
    torch.manual_seed(0)
    head = new_head(build(before.manifest.provenance.network, 4), before.manifest)
    torch.save(head.state_dict(), tmp_path / "explainer.pt")
    figures = {"default": "layercam", "methods": {"layercam": {"deletion": {"value": 0.25, "low": 0.1, "high": 0.4}}}}
    (tmp_path / "quality.json").write_text(json.dumps(figures))
    more = ["--fp16", "--fastshap", str(tmp_path / "explainer.pt"), "--quality", str(tmp_path / "quality.json")]
    assert extend([*words, *more]) == 0

    after = read_bundle(bundle_folder)
    engine = open_engine(after, device="cpu")
    outputs = engine.run(images, ["shapley"])
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-5)
    assert outputs.more["shapley"].shape[:2] == (len(images), 4)
    assert after.manifest.default_explanation == "layercam"
    quality = {e.method: e.quality for e in after.manifest.explanations}
    assert quality["layercam"]["deletion"].value == 0.25
    assert quality["gradcam"] == {}
    assert "fastshap" in quality
    profile = after.manifest.profiles["fp16"]
    assert profile.measured_on == open_engine(after).provider
    assert profile.labels_agree >= 0.99
    half = open_engine(after, device="cpu", precision="fp16")
    assert half.precision == "fp16"
    np.testing.assert_allclose(half.run(images).logits, outputs.logits, atol=0.02 * np.abs(outputs.logits).max())

    assert extend(words) == 0  # what is not asked for again and needs data is gone; the rest stays
    plain = read_bundle(bundle_folder)
    assert plain.manifest.profiles == {}
    assert plain.fp16 is None
    assert "shapley" in plain.manifest.graph.outputs
    assert {e.method: e.quality for e in plain.manifest.explanations} == quality


def test_nothing_is_written_where_a_gate_is_not_passed(bundle_folder, words, monkeypatch):
    monkeypatch.setattr("export.gate.LEAST_CORRELATION", 1.1)
    before = {path.name: sha256(path) for path in bundle_folder.iterdir()}
    assert extend([*words, "--int8"]) == 1
    assert {path.name: sha256(path) for path in bundle_folder.iterdir()} == before
