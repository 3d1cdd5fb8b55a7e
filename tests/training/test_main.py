"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.__main__ import main


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As a process would end; an interpreter of its own is started where its imports or its processes matter."""
    with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as complained:
        status = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, said.getvalue(), complained.getvalue())


@pytest.fixture
def oct_folder(tmp_path: Path) -> Path:
    root = tmp_path / "oct"
    for patient in range(12):
        for label in ("CNV", "NORMAL"):
            seed = patient * 2 + (label == "CNV")
            smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 64)), 3)
            path = root / label / f"{label}-{seed}-1.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))).save(path)
    return root


def test_help_needs_no_heavy_import() -> None:
    code = "import sys, training.__main__ as m\ntry: m.main(['train', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--cache" in done.stdout


def test_split_then_describe(oct_folder: Path, tmp_path: Path) -> None:
    split, report = tmp_path / "split.json", tmp_path / "report.json"
    done = run("data", "split", oct_folder, split, "--adapter", "kermany", "--seed", "3", "--test", "0.25")
    assert done.returncode == 0, done.stderr
    written = json.loads(split.read_text())
    assert (written["seed"], written["test_share"], written["validation_share"], written["guard"]) == (3, 0.25, 0.2, 8)
    done = run("data", "describe", oct_folder, "--split", split, "--json", report)
    assert done.returncode == 0, done.stderr
    assert "adapter: kermany (guessed" in done.stdout
    assert "no group and no cluster of near duplicates lies in two parts" in done.stdout
    found = json.loads(report.read_text())
    assert (found["images"], found["groups"]) == (24, 24)
    assert sum(part["images"] for part in found["split"]["parts"]) == 24


def test_a_leaking_split_is_an_error_status(oct_folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    assert run("data", "split", oct_folder, split, "--adapter", "kermany").returncode == 0
    written = json.loads(split.read_text())
    written["train"].append(written["test"][0])
    split.write_text(json.dumps(written))
    done = run("data", "describe", oct_folder, "--split", split)
    assert done.returncode == 1
    assert "1 images in the split twice" in done.stdout


def wrong_inputs(root: Path) -> list[tuple[list[str | Path], str]]:
    (root / "empty").mkdir()
    (root / "split.json").write_text('{"seed": "one"}')
    (root / "config.toml").write_text('network = "resnet50"\nbatch = "many"\n')
    (root / "broken.toml").write_text("network =\n")
    (root / "unknown.toml").write_text('network = "alexnet"\n')
    (root / "half.pt").write_bytes(b"PK\x03\x04")
    torch.save({"weight": torch.zeros(1)}, root / "weights.pt")
    (root / "file").touch()
    return [
        (["data", "describe", root / "absent"], "absent is not a folder"),
        (["data", "describe", root / "empty"], "name its adapter with --adapter"),
        (["data", "describe", root / "empty", "--adapter", "imagenet"], "no adapter 'imagenet'"),
        (["data", "describe", root / "empty", "--split", root / "split.json"], "Split: seed: Input should be"),
        (["data", "describe", root / "empty", "--split", root / "none.json"], "none.json: No such file"),
        (["train", root / "config.toml", root, root / "out"], "TrainConfig: classes: Field required; "),
        (["train", root / "broken.toml", root, root / "out"], "Invalid value"),
        (["train", root / "unknown.toml", root, root / "out"], "no network 'alexnet'; there are oculusnet, resnet50"),
        (["evaluate", root / "config.toml", root, root / "out"], "config.toml is not a checkpoint"),
        (["evaluate", root / "half.pt", root, root / "out"], "half.pt is not a checkpoint"),
        (["evaluate", root / "weights.pt", root, root / "out"], "weights.pt is not the last.pt of a run"),
        (["segment", "evaluate", root / "weights.pt", root, root / "out"], "weights.pt is not the last.pt of a run"),
        (["generate", "sheet", root / "weights.pt", root / "out.png"], "weights.pt is not the last.pt of a run"),
        (["study", "power", "--json", "/proc/power.json"], "/proc/"),
        (["study", "simulate", root / "file" / "out"], "file/out: Not a directory"),
    ]


def test_wrong_input_is_one_line_and_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in wrong_inputs(tmp_path):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_stopped_is_one_line_and_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.datasets.guess.guess_adapter", stopped)
    assert main(["data", "describe", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "python -m training: error: stopped; what was finished is kept\n"


@pytest.mark.parametrize("option", [["--with", "1.5"], ["--without", "0"], ["--goal", "2"]])
def test_shares_of_a_plan_are_checked(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["study", "power", *option])
    assert "is not between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize("devices", ["0", "many"])
def test_devices_are_checked(devices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(tmp_path), str(tmp_path), str(tmp_path), "--devices", devices])
    assert "neither a number from 1 nor auto" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--test", "1.5"], ["--validation", "0"], ["--guard", "-1"]])
def test_shares_and_guard_are_checked(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", "split", str(tmp_path), str(tmp_path / "s.json"), *option])
    assert option[0] in capsys.readouterr().err


TWO_PROCESSES = """
network = "oculusnet"
classes = ["CNV", "NORMAL"]
batch = 2
stages = [{{ size = 32, epochs = 1 }}]
data = {{ adapter = "kermany", split = "{split}" }}
preprocessing = {{ field_of_view = "frame", size = 32 }}
"""


def test_torchrun_shares_one_run_between_processes(oct_folder: Path, tmp_path: Path) -> None:
    config, split = tmp_path / "config.toml", tmp_path / "split.json"
    config.write_text(TWO_PROCESSES.format(split=split))
    assert run("data", "split", oct_folder, split, "--adapter", "kermany", "--test", "0.2").returncode == 0
    images = len(json.loads(split.read_text())["train"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "training", "train", str(config), str(oct_folder), str(tmp_path / "run")]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2  # one head, one epoch: one writer
    assert f"{images // 4}/{images // 4}" in done.stderr  # each process takes half of the steps
