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
from training.datasets.split import PARTS, Split, make_split
from training.models import build_opposed
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
    network = build_opposed("oculusnet", 4, [3])
    save_checkpoint(root / "last.pt", {"config": config.model_dump_json(), "averaged": network.state_dict()})
    words = ["evaluate", root / "last.pt", root / "data", root / "report", "--bootstrap", "60"]
    with redirect_stdout(StringIO()) as printed:
        assert main([*map(str, words)]) == 0
    return root, printed.getvalue()


@pytest.fixture(scope="module")
def across(evaluated, tmp_path_factory):
    """The same network on the same slices and on those of two more sources beside them."""
    root = tmp_path_factory.mktemp("across")
    (root / "brain_mri").symlink_to(evaluated[0] / "data")
    random = np.random.default_rng(1)
    lines = ["file,mask,source,patient,label,sequence,plane,level"]
    for number in range(24):
        source, patient, ill = ("lgg", f"P{number // 6}", number % 2) if number < 18 else ("alzheimer_x", "", 0)
        (root / "multi" / source).mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:72, :72]
        slice_ = np.where(
            (y - 36) ** 2 + (x - 36) ** 2 < 900, 110 + gaussian_filter(random.normal(size=(72, 72)), 2), 0
        )
        mask = (abs(y - 30) < 5) & (abs(x - 30) < 5)
        name = f"{source}/{number}"
        Image.fromarray((slice_ + 100 * (mask & bool(ill))).astype(np.uint8)).save(root / "multi" / f"{name}.png")
        if ill:
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / "multi" / f"{name}_mask.png")
        outline, label = (f"{name}_mask.png", "tumour") if ill else ("", "no_tumour")
        level = f"{number % 6 / 10:.2f}" if patient else ""
        lines.append(f"{name}.png,{outline},{source},{patient},{label},T1,axial,{level}")
    (root / "multi" / "index.csv").write_text("\n".join(lines) + "\n")
    split = Split.load(evaluated[0] / "split.json")
    names = {record.id: record.group for record in read_dataset("brain_sources", root) if "multi/" in record.id}
    parts = {part: tuple(n for n, g in names.items() if (g == "lgg/P0") == (part == "validation")) for part in PARTS}
    parts["train"] = ()
    split.model_copy(update={part: getattr(split, part) + ids for part, ids in parts.items()}).save(root / "split.json")
    kept = torch.load(evaluated[0] / "last.pt", weights_only=True)
    config = TrainConfig.model_validate_json(kept["config"])
    data = DataConfig(adapter="brain_sources", split=root / "split.json")
    config = config.model_copy(update={"data": data})
    save_checkpoint(root / "last.pt", {"config": config.model_dump_json(), "averaged": kept["averaged"]})
    words = ["evaluate", root / "last.pt", root, root / "report", "--bootstrap", "60", "--no-shortcut"]
    with redirect_stdout(StringIO()):
        assert main([*map(str, words)]) == 0
    return root


def test_the_studys_figures_do_not_change_where_other_sources_join(evaluated, across):
    before, after = (load_report(root / "report") for root in (evaluated[0], across))
    assert after.metrics == before.metrics
    assert after.localisation == before.localisation
    assert after.confusion == before.confusion
    assert after.images == before.images
    assert before.sources is None
    assert after.operating_points[: len(before.operating_points)] == before.operating_points
    predictions = [(root / "report" / "predictions.csv").read_text() for root in (evaluated[0], across)]
    assert predictions[0] == predictions[1]


def test_the_report_says_what_holds_in_which_source(across):
    report = load_report(across / "report")
    assert report.sources is not None
    assert report.sources.images == report.images + 18
    rows = {(row.by, row.name): row for row in report.sources.findings}
    lgg, other = rows["source", "lgg"], rows["source", "alzheimer_x"]
    assert (lgg.images, lgg.with_finding, lgg.groups, lgg.paired) == (12, 6, 2, 2)
    assert (other.images, other.with_finding, other.paired) == (6, 0, 0)
    assert {"auroc", "auroc_within_patients", "auroc_within_level", "sensitivity/large_lesions"} <= set(lgg.values)
    assert "false_calls/large_lesions" in other.values
    assert ("skull", "stripped") in rows
    assert ("level", "middle third") in rows
    points = {point.name: point for point in report.operating_points}
    rule = report.sources.rules[-1]
    assert (rule.name, rule.threshold) == ("large_lesions", points["large_lesions"].threshold)


def test_the_document_shows_the_sources_and_which_images_its_tables_count(across):
    report = load_report(across / "report")
    text = (across / "report" / "report.md").read_text()
    for title in ("## By source", "### Called: argmax", "### Called: large_lesions", "### Maps by source"):
        assert title in text
    assert f"count {report.sources.images} images of all sources" in text
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_scores_of_all_sources_are_written_down(across):
    report = load_report(across / "report")
    with (across / "report" / "sources.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report.sources.images
    lgg = [row for row in rows if row["source"] == "lgg"]
    assert {row["typed"] for row in lgg if row["label"] == "glioma"} == {"False"}
    called = sum(float(row["score"]) > 0 for row in lgg if row["label"] == "no_tumor")
    assert all((row["lesion_share"] == "") == (row["label"] == "no_tumor") for row in lgg)
    row = next(r for r in report.sources.findings if (r.by, r.name) == ("source", "lgg"))
    assert row.values["false_calls/argmax"].value <= called / 6 + 1e-9  # argmax needs one class above all others


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
