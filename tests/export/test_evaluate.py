from __future__ import annotations

import shutil

import numpy as np
import pytest

from export.evaluate import main as evaluate
from export.rewrite import rewrite
from service.bundle import GRAPH, read_bundle, sha256
from training.report import load_report


def test_a_bundle_is_measured_anew_with_its_own_graph(finished_run, exported, tmp_path):
    root, bundle = finished_run.parent, tmp_path / exported.name
    shutil.copytree(exported, bundle)
    wider = read_bundle(bundle).manifest.preprocessing.model_copy(update={"margin": 0.4})
    rewrite(bundle, {"preprocessing": wider})
    arguments = [str(bundle), str(root / "config.toml"), str(root / "data"), str(tmp_path / "report")]
    assert evaluate([*arguments, "--bootstrap", "50", "--cache", str(tmp_path / "cache")]) == 0
    before, after = read_bundle(exported).manifest, read_bundle(bundle).manifest
    report = load_report(tmp_path / "report")
    assert after.evaluation.command == report.command
    assert "--bootstrap 50" in report.command
    for name, value in report.metrics.items():
        assert after.evaluation.metrics[name].value == value.value
    assert after.temperature == report.temperature != before.temperature
    assert report.checkpoint_digest == before.provenance.checkpoint_sha256
    assert after.evaluation.half_precision == before.evaluation.half_precision
    assert after.preprocessing == wider
    assert sha256(bundle / GRAPH) == sha256(exported / GRAPH)


def test_the_graph_answers_as_the_network_did(finished_run, exported, tmp_path):
    root, bundle = finished_run.parent, tmp_path / exported.name
    shutil.copytree(exported, bundle)
    arguments = [str(bundle), str(root / "config.toml"), str(root / "data"), str(tmp_path / "report")]
    assert evaluate([*arguments, "--bootstrap", "50", "--cache", str(tmp_path / "cache")]) == 0
    found, expected = load_report(tmp_path / "report"), load_report(finished_run / "report")
    for name in ("accuracy", "auroc", "nll_after"):
        assert found.metrics[name].value == pytest.approx(expected.metrics[name].value, abs=0.02)
    assert np.array(found.confusion).sum() == np.array(expected.confusion).sum()
