from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main
from export.description import SHIPPED, load_description
from service.bundle import read_bundle
from service.engine import check_golden, open_engine
from service.explainers import METHODS
from service.prediction import predict
from service.preprocessing import prepare
from service.types import Frame
from training.checkpoint import load_network
from training.report import load_report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def bundle_folder(exported) -> Path:
    return exported


def test_a_bundle_is_what_the_service_opens(bundle_folder):
    bundle = read_bundle(bundle_folder)
    assert sorted(path.name for path in bundle_folder.iterdir()) == [
        "MODEL_CARD.md",
        "golden.npz",
        "gradients.onnx",
        "manifest.json",
        "model.onnx",
        "weights.bin",
    ]
    engine = open_engine(bundle, device="cpu")
    assert check_golden(bundle, engine) < 1e-4
    assert [p.name for p in bundle_folder.parent.iterdir()] == [bundle_folder.name]  # no temporary folder is left


def test_the_bundle_predicts_what_the_evaluation_measured(bundle_folder, finished_run):
    """From a file on disk through the service's own preprocessing: no skew between training and serving."""
    from training.datasets import read_dataset
    from training.datasets.split import Split

    bundle = read_bundle(bundle_folder)
    engine = open_engine(bundle, device="cpu")
    records = read_dataset("kermany", finished_run.parent / "data")
    test = Split.load(finished_run.parent / "split.json").select(records, "test")
    right = 0
    for record in test:
        item = prepare(Frame(record.id, record.load_image()), bundle.manifest.preprocessing)
        outputs = engine.run(item.pixels[None, ..., None])
        right += predict(outputs.logits[0], bundle.manifest).label == record.label
    report = load_report(finished_run / "report")
    assert right / len(test) == pytest.approx(report.metrics["accuracy"].value)
    assert bundle.manifest.evaluation.images == len(test)
    assert bundle.manifest.evaluation.metrics["accuracy"].value == report.metrics["accuracy"].value
    assert bundle.manifest.temperature == report.temperature


def test_the_manifest_names_what_the_weights_came_from(bundle_folder, finished_run):
    manifest = read_bundle(bundle_folder).manifest
    report = load_report(finished_run / "report")
    network, config = load_network(finished_run / "last.pt")
    assert manifest.provenance.checkpoint_sha256 == report.checkpoint_digest
    assert manifest.provenance.data_sha256 == report.data_digest
    assert manifest.provenance.split_sha256 == report.split_digest
    assert manifest.provenance.parameters == sum(p.numel() for p in network.parameters())
    assert manifest.class_names == config.classes
    assert manifest.preprocessing == config.preprocessing
    assert manifest.graph.grid == (8, 8)
    assert {e.method for e in manifest.explanations} == set(METHODS) - {"fastshap"}
    assert manifest.findings[0].labels == ("CNV", "DME", "DRUSEN")
    half = manifest.evaluation.half_precision
    assert half["images"] == report.images
    assert half["accuracy_float32"] == pytest.approx(report.metrics["accuracy"].value)
    assert 0 < half["largest_probability_change"] < 0.1


def test_the_card_says_what_the_manifest_says(bundle_folder):
    card = (bundle_folder / "MODEL_CARD.md").read_text()
    manifest = read_bundle(bundle_folder).manifest
    assert "not a medical device" in card
    for limit in manifest.limits:
        assert limit in card
    for label in manifest.labels:
        assert f"`{label.name}`" in card
    assert f"{manifest.evaluation.metrics['accuracy'].value:.3f}" in card
    assert manifest.files["model.onnx"] in card


def test_the_golden_sample_is_drawn_not_taken_from_a_patient(bundle_folder, finished_run):
    golden = np.load(bundle_folder / "golden.npz")["images"]
    (stack,) = [np.load(p) for p in (finished_run / "cache").glob("*.npy") if np.load(p, mmap_mode="r").shape[0] > 40]
    for image in golden[..., 0]:
        assert np.abs(stack[:, 0].astype(int) - image.astype(int)).mean(axis=(1, 2)).min() > 5


def copy_of(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def change_report(run: Path, **changes: object) -> None:
    path = run / "report" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_digest": "0" * 64}, "of another checkpoint"),
        ({"part": "validation"}, "of the validation part"),
        ({"size": 32}, "of input size 32"),
        ({"operating_points": []}, "no operating point 'youden'"),
        ({"schema_version": 7}, "schema_version"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(finished_run, tmp_path, capsys, changes, message):
    run = copy_of(finished_run, tmp_path)
    change_report(run, **changes)
    out = tmp_path / "models" / "retinal-oct-oculusnet"
    assert main([str(run / "last.pt"), str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("missing", ["report/report.json", "report/predictions.csv", "report/cache", "last.pt"])
def test_what_is_missing_is_named(finished_run, tmp_path, capsys, missing):
    run = copy_of(finished_run, tmp_path)
    gone = run / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert main([str(run / "last.pt"), str(tmp_path / "retinal-oct-oculusnet")]) == 2
    assert Path(missing).name in capsys.readouterr().err


def test_a_description_of_other_classes_is_refused(finished_run, tmp_path, capsys):
    brain = SHIPPED / "brain-mri-resnet50.toml"
    out = tmp_path / "bundle"
    assert main([str(finished_run / "last.pt"), str(out), "--description", str(brain)]) == 2
    assert "are not the checkpoint's" in capsys.readouterr().err


def test_a_failed_check_leaves_the_older_bundle_as_it_was(bundle_folder, finished_run, monkeypatch, capsys):
    """The tolerance is made impossible: real deviations are above nothing."""
    from export import parity

    before = {path.name: path.read_bytes() for path in bundle_folder.iterdir()}
    monkeypatch.setitem(parity._TOLERANCES, "logits_equal_torch", -1.0)
    assert main([str(finished_run / "last.pt"), str(bundle_folder)]) == 1
    assert "logits_equal_torch" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in bundle_folder.iterdir()} == before
    assert [p.name for p in bundle_folder.parent.iterdir()] == [bundle_folder.name]


def test_an_older_bundle_is_replaced_whole(bundle_folder, finished_run):
    (bundle_folder / "left-over.txt").write_text("from an older version")
    assert main([str(finished_run / "last.pt"), str(bundle_folder)]) == 0
    assert not (bundle_folder / "left-over.txt").exists()
    read_bundle(bundle_folder)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_descriptions_are_complete(path):
    description = load_description(path)
    assert description.id == path.stem
    assert sum(label.healthy for label in description.labels) == (len(description.labels) > 1)  # nothing to outline
