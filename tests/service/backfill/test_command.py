"""The command on real Ray, killed at any point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bright import png

from service.backfill import __main__ as command
from service.backfill.ledger import Ledger
from tests.processes import SLIM

ROOT = Path(__file__).resolve().parents[3]
FILES, SHARD = 120, 8


@pytest.fixture
def archive(tmp_path) -> Path:
    chance = np.random.default_rng(3)
    folder = tmp_path / "archive"
    for number in range(FILES):
        path = folder / f"{number % 5}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = png(chance.integers(0, 256, (32, 32), np.uint8))
        path.write_bytes(b"no image" if number % 30 == 0 else content)
    return folder


class Run:
    def __init__(self, archive: Path, out: Path, models: Path) -> None:
        options = ["--model", "bright", "--shard", str(SHARD), "--batch", "4", "--ahead-mib", "1", "--engines", "1"]
        self._log = out.with_suffix(".txt").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.backfill", str(archive), str(out), *options],
            cwd=ROOT,
            env=os.environ | SLIM | {"RADIOLUCENT_MODELS": str(models), "RADIOLUCENT_DEVICE": "cpu"},
            stdout=self._log,
            stderr=self._log,
        )
        self.log = out.with_suffix(".txt")

    def wait(self) -> int:
        try:
            return self.process.wait(120)
        finally:
            self._log.close()


def test_a_run_that_is_killed_goes_on_and_every_image_is_answered_once(tmp_path, archive, write_bundle):
    models, out = write_bundle("bright").parent, tmp_path / "out"
    first = Run(archive, out, models)
    while len(before := set((out / "results").glob("[0-9]*.parquet"))) < 3:
        assert first.process.poll() is None, first.log.read_text()
        time.sleep(0.01)
    first.process.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.read_bytes() for path in before}
    assert len(list((out / "results").glob("[0-9]*.parquet"))) < FILES / SHARD, "it was done before it was killed"
    second = Run(archive, out, models)
    assert second.wait() == 0, second.log.read_text()
    assert all(path.read_bytes() == content for path, content in kept.items())
    table = pq.read_table(out / "results")
    sources = table.column("source").to_pylist()
    assert sorted(sources) == sorted(path.as_uri() for path in archive.rglob("*.png"))
    failed = {source for source, problem in zip(sources, table.column("problem").to_pylist(), strict=True) if problem}
    assert failed == {(archive / f"{number % 5}" / f"{number}.png").as_uri() for number in range(0, FILES, 30)}
    assert set(table.column("model").to_pylist()) == {"bright"}
    assert b"Research use only" in table.schema.metadata[b"notice"]
    said = second.log.read_text()
    assert f"{FILES - 4} images answered, 4 failed" in said
    assert "0.png" not in said


def run(*arguments: str) -> int:
    return command.main(list(arguments))


def test_wrong_questions_end_before_anything_is_written(tmp_path, archive, write_bundle, monkeypatch, capsys):
    monkeypatch.setenv("RADIOLUCENT_MODELS", str(write_bundle("bright").parent))
    out = tmp_path / "out"
    for wrong, said in (
        (["--model", "absent"], "no such model"),
        (["--model", "../models/bright"], "no such model"),
        (["--model", "bright", "--method", "magic"], "does not explain by this method"),
        (["--model", "bright", "--target", "all"], "one map is made for an image"),
        (["--model", "bright", "--target", "green"], "must be predicted"),
        (["--model", "bright", "--batch", "0"], "at least 1"),
        (["--model", "bright", "--budget", "0"], "budget"),
    ):
        assert run(str(archive), str(out), *wrong) == 2
        assert said in capsys.readouterr().err
    assert run(str(tmp_path / "absent"), str(out), "--model", "bright") == 2
    assert not out.exists()


def test_a_folder_of_another_run_is_refused(tmp_path, archive, write_bundle, monkeypatch, capsys):
    monkeypatch.setenv("RADIOLUCENT_MODELS", str(write_bundle("bright").parent))
    Ledger(tmp_path / "out", {"model": "other"}).close()
    assert run(str(archive), str(tmp_path / "out"), "--model", "bright") == 2
    assert "another question" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run("archive", "out", "--model", "bright")
    assert "radiolucent[backfill]" in capsys.readouterr().err
