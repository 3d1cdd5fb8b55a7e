"""From a checkpoint to a report on disk, by the command."""

from __future__ import annotations

import csv
import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from service.types import PreprocessingSpec
from training.__main__ import main
from training.checkpoint import save_checkpoint
from training.config import DataConfig, StageConfig, TrainConfig
from training.datasets import read_dataset
from training.datasets.duplicates import near_pairs, perceptual_hashes
from training.datasets.split import Split, make_split
from training.models import build
from training.report import Report, load_report, markdown

CLASSES = ("glioma", "meningioma", "pituitary", "no_tumor")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An untrained network on 128 drawn slices in the brain layout."""
    root = tmp_path_factory.mktemp("evaluated")
    random = np.random.default_rng(0)
    for number, label in enumerate(CLASSES):
        (root / "data" / "images" / label).mkdir(parents=True)
        (root / "data" / "masks" / label).mkdir(parents=True)
        for index in range(32):
            y, x = np.mgrid[:72, :72]
            inside = (y - 36) ** 2 + (x - 36) ** 2 < 900
            texture = gaussian_filter(random.normal(size=(72, 72)), 2) * 120
            slice_ = np.where(inside, 110 + texture, 0)
            mask = np.zeros((72, 72), np.uint8)
            if label != "no_tumor":
                row, column = random.integers(25, 47, 2)
                mask[row - 4 : row + 4, column - 4 : column + 4] = 255
                slice_[mask > 0] = 240
                Image.fromarray(mask).save(root / "data" / "masks" / label / f"{number * 1000 + index * 50}.png")
            picture = Image.fromarray(np.clip(slice_, 0, 255).astype(np.uint8))
            picture.save(root / "data" / "images" / label / f"{number * 1000 + index * 50}.png")
    config = TrainConfig(
        network="oculusnet",
        classes=CLASSES,
        healthy=("no_tumor",),
        data=DataConfig(adapter="brain_folders", split=root / "split.json"),
        preprocessing=PreprocessingSpec(field_of_view="head", size=64),
        stages=(StageConfig(size=64, epochs=1),),
    )
    records = read_dataset("brain_folders", root / "data")
    make_split(records, near_pairs(perceptual_hashes(records)), seed=0, guard=0).save(config.data.split)
    torch.manual_seed(0)
    network = build("oculusnet", 4)
    save_checkpoint(root / "last.pt", {"config": config.model_dump_json(), "averaged": network.state_dict()})
    words = ["evaluate", root / "last.pt", root / "data", root / "report", "--bootstrap", "60"]
    with redirect_stdout(StringIO()) as printed:
        assert main([*map(str, words)]) == 0
    return root, printed.getvalue()


def test_the_report_holds_every_metric_with_its_interval(evaluated):
    root, printed = evaluated
    report = load_report(root / "report")
    wanted = [
        "accuracy",
        "precision",
        "recall",
        "f1",
        "f2",
        "specificity",
        "balanced_accuracy",
        "kappa",
        "mcc",
        "auroc",
    ]
    wanted += ["ece_before", "ece_after", "finding_accuracy", "finding_auroc"]
    for name in wanted:
        estimate = report.metrics[name]
        assert estimate.low <= estimate.high, name
        assert name in printed
    assert f"f2/{CLASSES[0]}" in report.metrics
    assert sum(map(sum, report.confusion)) == report.images


def test_the_report_measures_maps_and_shortcut_with_their_baselines(evaluated):
    report = load_report(evaluated[0] / "report")
    assert {"pointing_game", "pointing_game_centre", "pointing_game_random", "energy_inside"} <= set(
        report.localisation
    )
    assert {"hidden/background/auroc", "probe/thumbnail/auroc"} <= set(report.shortcut)
    outlined = report.counts["pointing_game"]
    assert 0 < outlined < report.images


def test_predictions_agree_with_the_report(evaluated):
    root, _ = evaluated
    report = load_report(root / "report")
    with (root / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report.images
    split = Split.load(root / "split.json")
    assert {row["id"] for row in rows} == set(split.test)
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(report.metrics["accuracy"].value)
    for row in rows:
        assert sum(float(row[f"p_{name}"]) for name in CLASSES) == pytest.approx(1, abs=1e-5)


def test_figures_and_markdown_are_there(evaluated):
    folder = evaluated[0] / "report"
    for name in ("metrics.png", "correct.png", "confusion.png", "reliability.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
        assert f"({name})" in (folder / "report.md").read_text()
    text = (folder / "report.md").read_text()
    assert text.count("## ") >= 8
    assert str(evaluated[0]) not in text  # places of the machine stay out of it


def test_reports_survive_a_round_trip(evaluated):
    report = load_report(evaluated[0] / "report")
    again = Report.model_validate(json.loads(report.model_dump_json()))
    assert again == report
    assert markdown(again) == markdown(report)


def test_a_missing_report_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_report(tmp_path)
