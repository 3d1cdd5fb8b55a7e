"""The whole of `python -m loadtests` on a real service with a small model, Locust as master with two workers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from bright import write_bundle_into

from benchmarks.served import started
from loadtests.__main__ import main as load
from loadtests.report import FILES, main
from loadtests.scrape import parse
from loadtests.serving import NothingMeasured, check_key, use_key
from service.access.keys import make_key, write_keys
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
MIX = """
[reading_room]
weight = 2
think_s = [0.02, 0.05]
overlay = 0.3
[mixed_methods]
weight = 1
think_s = [0.02, 0.05]
methods = ["gradcam"]
images = [1, 3]
predictions = 0.5
[slow_client]
weight = 1
think_s = [0.0, 0.1]
send_s = [0.1, 0.2]
[bad_input]
weight = 2
think_s = [0.02, 0.05]
"""
OBJECTIVES = """
warm_up_s = 0.5
least_requests = 20
images_per_s = 1
[latency.predict]
p95_ms = 60000
least = 1
[latency."explain gradcam"]
p50_ms = 60000
least = 3
[latency."slow client"]
p95_ms = 60000
least = 1
[latency."bad input"]
p95_ms = {bad_input}
least = 5
"""


KEY, RECORD = make_key("load", ("explain", "metrics"), None, "")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A service that wants a key."""
    folder = tmp_path_factory.mktemp("served")
    write_keys(folder / "keys.json", (RECORD,))
    write_bundle_into(folder / "models", "bright")
    settings = {
        "MODELS": str(folder / "models"),
        "JOBS_DATABASE": f"sqlite:///{folder}/jobs.sqlite",
        "READER_STUDIES": f"sqlite:///{folder}/readings.sqlite",
        "STUDY_FOLDER": str(folder / "studies"),
        "KEYS": str(folder / "keys.json"),
        "SITE_KEY": str(folder / "site.key"),
    }
    with started({f"RADIOLUCENT_{name}": value for name, value in settings.items()}) as served:
        yield served.url


@pytest.mark.server
def test_a_distributed_run_ends_with_a_verdict_and_a_report(url, tmp_path):
    (tmp_path / "mix.toml").write_text(MIX)
    (tmp_path / "objectives.toml").write_text(OBJECTIVES.format(bad_input=60000))
    (tmp_path / "key").write_text(f"{KEY}\n")
    out = tmp_path / "report"
    command = [
        *(sys.executable, "-m", "loadtests", "--out", str(out)),
        *("--key", str(tmp_path / "key"), "--url", url, "--users", "12", "--seconds", "4"),
        *("--processes", "2", "--port", str(free_port())),
        *("--mix", str(tmp_path / "mix.toml"), "--objectives", str(tmp_path / "objectives.toml"), "--shape", "steps"),
    ]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"RADIOLUCENT_LOAD_KEY": ""}, capture_output=True)
    assert run.returncode == 0, run.stdout.decode() + run.stderr.decode() + (out / "locust.txt").read_text()
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "locust.txt"])

    told = b"".join([run.stdout, run.stderr, *(path.read_bytes() for path in out.iterdir())])
    assert KEY.encode() not in told

    result = json.loads((out / "load.json").read_text())
    assert result["met"] is True
    assert {row["operation"] for row in result["operations"]} >= {"predict", "explain gradcam", "bad input"}
    assert sum(row["wrong"] + row["shed"] for row in result["operations"]) == 0
    assert max(value for value in result["server"]["cpu"] if value is not None) > 0
    assert min(result["server"]["rss_mib"]) > 50
    assert any(value is not None and value >= 1 for value in result["server"]["batch"])
    assert {"decode", "queue", "inference", "explanation", "encode"} <= set(result["stage_seconds"])
    with (out / "samples.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result["samples"]["at"])

    page = (out / "index.html").read_text()
    assert page.count("<svg") == 7
    assert "Research use only" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )

    (tmp_path / "again").mkdir()
    assert main([str(out / "load.json"), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "index.html").read_bytes() == (out / "index.html").read_bytes()


@pytest.mark.server
def test_a_missed_objective_is_status_one_and_an_impossible_mix_status_two(url, tmp_path, monkeypatch, capsys):
    (tmp_path / "mix.toml").write_text("[bad_input]\nweight = 2\nthink_s = [0, 0.1]\n")
    (tmp_path / "objectives.toml").write_text(
        'warm_up_s = 0\nleast_requests = 1\n[latency."bad input"]\np95_ms = 0.001\nleast = 1\n'
    )
    files = ["--mix", str(tmp_path / "mix.toml"), "--objectives", str(tmp_path / "objectives.toml")]
    monkeypatch.setenv("RADIOLUCENT_LOAD_KEY", KEY)
    assert load(["--out", str(tmp_path / "a"), "--url", url, "--seconds", "1", *files]) == 1
    assert "bad input, p95" in capsys.readouterr().out

    (tmp_path / "mix.toml").write_text('[reading_room]\nweight = 1\nthink_s = [0, 0]\nmethods = ["no-such-method"]\n')
    assert load(["--out", str(tmp_path / "b"), "--url", url, "--seconds", "3", *files]) == 2
    assert "no model offers any of no-such-method" in (tmp_path / "b" / "locust.txt").read_text()


@pytest.mark.server
def test_without_its_key_nothing_is_measured_and_the_reason_is_told(url, tmp_path, monkeypatch):
    monkeypatch.setenv("RADIOLUCENT_LOAD_KEY", "rl_" + "A" * 43)
    with pytest.raises(NothingMeasured, match="status 401; a key of scope explain"):
        check_key(url, f"{url}/metrics")
    monkeypatch.setenv("RADIOLUCENT_LOAD_KEY", KEY)
    assert check_key(url, f"{url}/metrics") == ""
    with pytest.raises(NothingMeasured, match="FileNotFoundError"):
        use_key(Namespace(key=tmp_path / "none"))


def test_what_cannot_be_used_is_status_two(tmp_path, capsys):
    (tmp_path / "mix.toml").write_text("")
    assert load(["--out", str(tmp_path / "a"), "--mix", str(tmp_path / "mix.toml")]) == 2
    assert "no kind of user comes" in capsys.readouterr().err


def test_metrics_are_read_by_name_whatever_their_labels():
    text = (
        'radiolucent_stage_seconds_sum{stage="queue",model="a",method="x",new="1"} 1.5\n'
        'radiolucent_stage_seconds_sum{stage="queue",model="b",method="x",new="1"} 0.5\n'
        'radiolucent_stage_seconds_count{stage="queue",model="b"} 9\n'
        'radiolucent_batch_images_sum{model="a"} 12\nradiolucent_batch_images_count{model="a"} 4\n'
        'something_else{model="a"} 4\n'
    )
    assert parse(text) == ({"queue": 2.0}, (4.0, 12.0))
    with pytest.raises(ValueError, match="could not convert"):
        parse("no-metric at all {")
