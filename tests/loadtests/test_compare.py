from __future__ import annotations

import json

import numpy as np
import pytest

from loadtests.compare import main
from loadtests.objectives import Latency, Objectives
from loadtests.result import result_of
from loadtests.samples import Sample

GOALS = Objectives(warm_up_s=0, latency={"predict": Latency(p50_ms=1e6)})
OPTIONS = {"users": 4, "seconds": 100.0, "shape": "constant", "warm_up_s": 0.0, "mix": {}}


def samples(seed, *, slower=1.0, tail=1.0, wrong=0.0, shed=0.0):
    """100 s at 10 a second; waves of seconds' length make neighbours alike."""
    random = np.random.default_rng(seed)
    at = np.sort(random.uniform(0, 100, 1000))
    noise = np.zeros(100)
    for second in range(1, 100):
        noise[second] = 0.7 * noise[second - 1] + random.normal(0, 0.15)
    ms = 100 * slower * np.exp(noise[at.astype(int)] + random.normal(0, 0.3, 1000))
    ms = np.where(random.random(1000) < 0.1, ms * 2 * tail, ms)
    outcome = np.where(random.random(1000) < wrong, "wrong", "answered")
    outcome = np.where(random.random(1000) < shed, "shed", outcome)
    return [
        Sample(1e9 + a, m, "predict", o, 1) for a, m, o in zip(at.tolist(), ms.tolist(), outcome.tolist(), strict=True)
    ]


def written(path, own, **options):
    path.write_text(json.dumps(result_of(own, [], GOALS, OPTIONS | options, "")))
    return str(path)


def compared(tmp_path, first, second, *arguments):
    return main([written(tmp_path / "a.json", first), written(tmp_path / "b.json", second), *arguments])


def test_noise_is_no_regression(tmp_path):
    found = [compared(tmp_path, samples(seed), samples(seed + 100)) for seed in range(12)]
    assert sum(found) <= 1


def test_a_regression_is_found_and_explained(tmp_path, capsys):
    found = [compared(tmp_path, samples(seed), samples(seed + 100, slower=1.5)) for seed in range(4)]
    assert found == [1, 1, 1, 1]
    assert "predict, p50 ms is 1." in capsys.readouterr().out


def test_a_longer_tail_alone_is_found(tmp_path, capsys):
    assert compared(tmp_path, samples(0), samples(1, tail=4)) == 1
    out = capsys.readouterr().out
    assert "predict, p95 ms is " in out
    assert "predict, p50 ms is " not in out


def test_faster_is_no_regression(tmp_path, capsys):
    assert compared(tmp_path, samples(0, slower=1.5), samples(1)) == 0
    assert "improvement" in capsys.readouterr().out


def test_less_throughput_is_one(tmp_path, capsys):
    assert compared(tmp_path, samples(0), samples(1)[::2]) == 1
    assert "throughput is 0.5" in capsys.readouterr().out


def test_more_wrong_answers_are_one(tmp_path, capsys):
    assert compared(tmp_path, samples(0, wrong=0.01), samples(1, wrong=0.01)) == 0
    assert compared(tmp_path, samples(0), samples(1, wrong=0.03)) == 1
    assert "wrong answers: " in capsys.readouterr().out


def test_a_larger_share_that_is_put_off_is_one(tmp_path, capsys):
    assert compared(tmp_path, samples(0, shed=0.1), samples(1, shed=0.12)) == 0
    assert compared(tmp_path, samples(0, shed=0.02), samples(1, shed=0.15)) == 1
    assert "put off: 1" in capsys.readouterr().out


def test_a_change_within_the_tolerance_does_not_matter(tmp_path):
    assert compared(tmp_path, samples(0), samples(1, slower=1.5), "--tolerance", "0.9") == 0


def test_several_runs_of_a_side_count_together(tmp_path):
    more = written(tmp_path / "a2.json", samples(2)), written(tmp_path / "b2.json", samples(3, slower=1.4))
    arguments = ("--baseline", more[0], "--candidate", more[1])
    assert compared(tmp_path, samples(0), samples(1, slower=1.4), *arguments) == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kind": "load"}', '{"kind": "load", "samples": {}}'])
def test_what_is_no_result_is_status_two(tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    assert main([str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 2
    assert "x.json" in capsys.readouterr().err


def test_other_loads_and_short_runs_are_not_compared(tmp_path, capsys):
    first, other = written(tmp_path / "a.json", samples(0)), written(tmp_path / "b.json", samples(0), users=5)
    assert main([first, other]) == 2
    assert "different loads" in capsys.readouterr().err
    assert compared(tmp_path, samples(0)[:100], samples(1)[:100]) == 2
    assert "too short" in capsys.readouterr().err
