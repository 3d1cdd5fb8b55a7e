from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import lively
from PIL import Image

import export.segmentation as writing
from export.__main__ import main as export
from export.golden import phantoms
from service.bundle import MANIFEST
from service.segmenter import open_segmenter
from service.types import PreprocessingSpec
from training.checkpoint import save_checkpoint
from training.config import DataConfig, StageConfig
from training.datasets.class_folders import class_folders
from training.datasets.duplicates import near_pairs, perceptual_hashes
from training.datasets.split import make_split
from training.models.unet import MaskGraph, UNet
from training.segmentation.config import SegmentationConfig
from training.segmentation.measure import evaluate
from training.segmentation.report import save_report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

DESCRIPTION = """
id = "spots"
version = "1.0.0"
title = "Spots"
training_data = "drawn"
intended_use = "tests"
limits = ["none"]
licence = "Apache-2.0"
[kind]
modalities = ["MR"]
body_part = {{ scheme = "SCT", value = "1", meaning = "Part" }}
description = "drawn spots."
{labels}
"""
LABEL = '[[labels]]\nname = "spot"\ndisplay = "Spot"\n'


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A run whose network is random, and its report on drawn images."""
    root = tmp_path_factory.mktemp("unet")
    random = np.random.default_rng(0)
    for label in ("spot", "plain"):
        for folder in ("images", "masks"):
            (root / folder / label).mkdir(parents=True)
        for index in range(40):
            pixels, mask = random.integers(0, 160, (40, 48), np.uint8), np.zeros((40, 48), np.uint8)
            if label == "spot":
                y, x = random.integers(2, 25, 2)
                mask[y : y + 12, x : x + 12] = 255
                pixels[mask > 0] = 240
                Image.fromarray(mask).save(root / "masks" / label / f"{index}.png")
            Image.fromarray(pixels).save(root / "images" / label / f"{index}.png")
    records = class_folders(root / "images", block=4, masks=root / "masks")
    pairs = near_pairs(perceptual_hashes(records))
    make_split(records, pairs, seed=0, test_share=0.3, guard=0).save(root / "split.json")
    config = SegmentationConfig(
        channels=(8, 16, 32),
        classes=("spot", "plain"),
        healthy=("plain",),
        data=DataConfig(adapter="spots", split=root / "split.json"),
        preprocessing=PreprocessingSpec(field_of_view="frame", size=32),
        stages=(StageConfig(size=32, epochs=1),),
    )
    torch.manual_seed(0)
    network = lively(UNet(config.channels))
    content = {"task": "segmentation", "config": config.model_dump_json(), "averaged": network.state_dict()}
    (root / "run").mkdir()
    save_checkpoint(root / "run" / "last.pt", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.segmentation.measure.read_dataset", lambda *_, **__: records)
        report, scores = evaluate(
            root / "run" / "last.pt", root / "images", root / "run" / "report" / "cache", resamples=20
        )
    save_report(report, scores, root / "run" / "report")
    (root / "spots.toml").write_text(DESCRIPTION.format(labels=LABEL))
    (root / "two.toml").write_text(DESCRIPTION.format(labels=LABEL + LABEL.replace("spot", "other")))
    return root


def test_the_bundle_computes_what_torch_does_and_says_what_the_report_did(evaluated, tmp_path):
    out = tmp_path / "spots"
    arguments = [str(evaluated / "run" / "last.pt"), str(out), "--description", str(evaluated / "spots.toml")]
    assert export(arguments) == 0
    opened = open_segmenter(out, device="cpu")
    manifest = json.loads((out / MANIFEST).read_text())
    report = json.loads((evaluated / "run" / "report" / "report.json").read_text())
    assert manifest["task"] == "segmentation"
    assert manifest["operating_point"]["threshold"] == report["threshold"]
    assert {n: v["value"] for n, v in manifest["evaluation"]["metrics"].items()} == {
        n: v["value"] for n, v in report["metrics"].items()
    }
    assert manifest["evaluation"]["half_precision"]["images"] > 0
    images = phantoms(32, 5)
    graph = MaskGraph(writing.load_unet(evaluated / "run" / "last.pt")[0]).eval()
    np.testing.assert_allclose(opened.run(images).probabilities, writing.masks_of(graph, images), atol=5e-3)
    stored = onnx.load(out / "model.onnx", load_external_data=False).graph.initializer
    large = {t.data_type for t in stored if np.prod(t.dims) > 256}
    assert large == {onnx.TensorProto.FLOAT16}  # as the manifest says
    assert opened.run(images[:1]).probabilities.shape == (1, 32, 32)  # any number of images
    card = (out / "MODEL_CARD.md").read_text()
    assert "not a medical device" in card
    assert "mask equals torch" in card
    assert export(arguments) == 0  # an older bundle is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spots"]


def test_what_does_not_belong_together_is_refused_and_writes_nothing(evaluated, tmp_path, capsys, monkeypatch):
    out = tmp_path / "spots"
    checkpoint = str(evaluated / "run" / "last.pt")
    assert export([checkpoint, str(out), "--description", str(evaluated / "two.toml")]) == 2
    assert "outlines one label; the description has 2" in capsys.readouterr().err
    other = tmp_path / "other"
    (other / "report").mkdir(parents=True)
    for file in ("report.json", "scores.csv"):
        (other / "report" / file).write_bytes((evaluated / "run" / "report" / file).read_bytes())
    arguments = [str(out), "--description", str(evaluated / "spots.toml")]
    assert export([checkpoint, *arguments, "--report", str(other / "report")]) == 2
    assert "run python -m training segment evaluate" in capsys.readouterr().err
    monkeypatch.setattr(writing, "TOLERANCE", -1.0)
    assert export([checkpoint, *arguments]) == 1
    assert "mask_equals_torch" in capsys.readouterr().err
    assert not out.exists()
