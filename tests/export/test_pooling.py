from __future__ import annotations

import json
import shutil

import pytest

from export.calibrate import main as calibrate
from export.extend import main as extend
from export.pooling import main
from service.bundle import read_bundle
from service.engine import open_engine, read_golden
from service.manifest import SeriesPooling
from service.series.pooling import NOT_CALIBRATED, pool

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_what_is_fitted_reaches_the_manifest_and_the_answers(finished_run, exported, tmp_path):
    root, fitted = finished_run.parent, tmp_path / "pooling.json"
    bundle = shutil.copytree(exported, tmp_path / exported.name)
    places = [str(root / "config.toml"), str(root / "data")]
    cache = ["--cache", str(tmp_path / "cache")]
    before = read_bundle(bundle)
    assert main([str(bundle), *places, str(fitted), "--bootstrap", "20", *cache]) == 0
    found = json.loads(fitted.read_text())
    wanted = SeriesPooling.model_validate(found["pooling"])
    assert wanted.groups == 16
    assert {"accuracy", "brier", "ece", "excess"} <= set(wanted.metrics)
    assert set(found["cross_validated_loss"]) == {"1", "2", "3", "5", "8"}
    assert str(tmp_path) not in fitted.read_text()

    assert extend([str(bundle), *places, "--pooling", str(fitted), *cache]) == 0
    after = read_bundle(bundle)
    assert before.manifest.series_pooling is None
    assert after.manifest.series_pooling == wanted
    assert read_bundle(bundle).manifest.temperature == before.manifest.temperature
    engine = open_engine(after, device="cpu")
    logits = engine.run(read_golden(after)["images"]).logits
    assert pool(logits, before.manifest).notes == (NOT_CALIBRATED,)
    assert pool(logits, after.manifest).notes == ()


def test_limits_of_series_are_put_in_measured_and_dropped_where_a_site_fits_its_own(
    finished_run, exported, tmp_path, capsys
):
    root, fitted = finished_run.parent, tmp_path / "pooling.json"
    bundle = shutil.copytree(exported, tmp_path / exported.name)
    wanted = [str(bundle), str(root / "config.toml"), str(root / "data"), str(fitted), "--bootstrap", "20"]
    wanted += ["--cache", str(tmp_path / "cache"), "--put-in", "--error-rate"]
    assert main([*wanted, "0.01"]) == 1
    assert "an error rate of 0.01 needs" in capsys.readouterr().err and not fitted.exists()
    assert main([*wanted, "0.4"]) == 0
    manifest = read_bundle(bundle).manifest
    pooling = manifest.series_pooling
    assert pooling is not None and pooling.error_rate == 0.4
    (finding,) = (one.name for one in manifest.findings)
    assert pooling.findings.keys() == {finding} == manifest.series_limits.keys()
    assert {f"{finding}/error/present", f"{finding}/error/absent"} <= pooling.metrics.keys()
    assert "at most 40% of those with it" in (bundle / "MODEL_CARD.md").read_text()

    assert calibrate([str(bundle), str(root / "data"), "--error-rate", "0.2", "--bootstrap", "20"]) == 0
    after = read_bundle(bundle).manifest
    assert after.series_pooling == pooling.model_copy(update={"findings": {}, "error_rate": None})
    assert after.series_limits == after.image_limits != {}


def test_a_network_without_a_healthy_class_is_refused(finished_run, exported, tmp_path, capsys):
    root = finished_run.parent
    config = tmp_path / "config.toml"
    config.write_text((root / "config.toml").read_text().replace('healthy = ["NORMAL"]\n', ""))
    out = tmp_path / "pooling.json"
    assert main([str(exported), str(config), str(root / "data"), str(out)]) == 2
    assert "healthy class" in capsys.readouterr().err
    assert not out.exists()
