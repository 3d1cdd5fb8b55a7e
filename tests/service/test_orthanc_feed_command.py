"""How the feed's process begins and ends; needs no Orthanc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.orthanc_feed import main

ROOT = Path(__file__).resolve().parents[2]


def test_help_is_no_error_and_arguments_are(capsys):
    assert main(["--help"]) == 0
    assert "RADIOLUCENT_FEED_" in capsys.readouterr().out
    assert main(["http://127.0.0.1:8042"]) == 2
    assert "RADIOLUCENT_FEED_" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("QUIET_S", "soon"), ("MODALITIES", "MR")])
def test_a_setting_that_cannot_be_used_is_one_line(name, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv(f"RADIOLUCENT_FEED_{name}", value)
    assert main([]) == 2
    complained = capsys.readouterr().err
    assert name.lower() in complained
    assert complained.count("\n") == 1


@pytest.mark.parametrize("content", ['{"last": 3', '{"last": 3}', '{"last": "a", "waiting": []}', ""])
def test_a_damaged_memory_is_one_line_and_stays_as_it_is(content, tmp_path, monkeypatch, capsys):
    state = tmp_path / "feed.json"
    state.write_text(content)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("RADIOLUCENT_FEED_STATE", str(state))
    assert main([]) == 2
    complained = capsys.readouterr().err
    assert f"{state} is damaged" in complained
    assert complained.count("\n") == 1
    assert state.read_text() == content


def heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so would the feed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_stopped_it_ends_without_a_traceback(tmp_path):
    settings = {"XDG_STATE_HOME": str(tmp_path), "RADIOLUCENT_FEED_ORTHANC": "http://127.0.0.1:1"}
    log = tmp_path / "log"
    with log.open("wb") as file:
        feed = subprocess.Popen(
            [sys.executable, "-m", "service.orthanc_feed"],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=file,
            stderr=file,
            preexec_fn=heed_interrupts,
        )
    until = time.monotonic() + 60
    while "cannot be reached" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    feed.send_signal(signal.SIGINT)
    assert feed.wait(30) == 2
    assert "stopped" in log.read_text()
    assert "Traceback" not in log.read_text()
