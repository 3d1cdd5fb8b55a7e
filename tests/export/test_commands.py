"""What is missing or wrong is one line and status 2, whichever command it is given to, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.__main__ import main as export
from export.extend import main as extend
from export.fastshap import main as fastshap
from export.pooling import main as pooling

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
Main = Callable[[list[str]], int]


def refused(main: Main, words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    complained = capsys.readouterr().err
    assert complained.count("\n") == 1
    return complained


@pytest.mark.parametrize("main", [extend, pooling, fastshap])
def test_bundle_configuration_and_data_that_are_missing_or_wrong(main, exported, finished_run, tmp_path, capsys):
    root, out = finished_run.parent, [] if main is extend else [tmp_path / "out"]
    config, data = root / "config.toml", root / "data"
    (tmp_path / "broken.toml").write_text("network =\n")
    assert "no manifest.json" in refused(main, [tmp_path, config, data, *out], capsys)
    assert "none.toml: No such file" in refused(main, [exported, tmp_path / "none.toml", data, *out], capsys)
    assert "Invalid value" in refused(main, [exported, tmp_path / "broken.toml", data, *out], capsys)
    assert "none is not a folder" in refused(main, [exported, config, tmp_path / "none", *out], capsys)
    assert not (tmp_path / "out").exists()


def test_what_extends_a_bundle_and_is_something_else(exported, finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.models.shapley_head.GRID", 4)  # inputs of 64 pixels have 4 x 4 cells
    root = finished_run.parent
    words = [exported, root / "config.toml", root / "data", "--cache", tmp_path / "cache"]
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    for more, reason in (
        (["--quality", tmp_path / "other.json"], "does not hold methods and default"),
        (["--pooling", tmp_path / "other.json"], "does not hold pooling"),
        (["--pooling", tmp_path / "broken.json"], "line 1 column 2"),
        (["--fastshap", tmp_path / "other.pt"], "is not an explainer of this network"),
        (["--fastshap", tmp_path / "other.json"], "is not a checkpoint"),
        (["--fastshap", tmp_path / "none.pt"], "none.pt: No such file"),
    ):
        assert reason in refused(extend, [*words, *more], capsys)


def test_what_is_exported_and_is_no_checkpoint(finished_run, tmp_path, capsys):
    out = tmp_path / "retinal-oct-oculusnet"
    (tmp_path / "broken.toml").write_text("title =\n")
    last = finished_run / "last.pt"
    assert "config.toml is not a checkpoint" in refused(export, [finished_run.parent / "config.toml", out], capsys)
    assert "Is a directory" in refused(export, [finished_run, out], capsys)
    assert "Invalid value" in refused(export, [last, out, "--description", tmp_path / "broken.toml"], capsys)
    assert "other.toml: No such file" in refused(export, [last, tmp_path / "other"], capsys)
    assert not out.exists()
