from __future__ import annotations

import pytest

from loadtests.mix import FileError
from loadtests.objectives import Latency, Objectives, judge, read_objectives
from loadtests.samples import Sample, columns_of, quantile, samples_of, steady

GOALS = Objectives(
    warm_up_s=10,
    least_requests=50,
    wrong=0.01,
    shed=0.1,
    images_per_s=1.0,
    latency={
        "predict": Latency(p50_ms=100, p95_ms=200, p99_ms=300),
        "explain *": Latency(p95_ms=500, least=5),
        "study": Latency(p95_ms=50, least=1, per_image=True),
    },
)


def run(**changes):
    """100 predictions of 80 ms in 100 s, ten explanations, a study of 100 slices; the first is before the warm-up."""
    samples = [Sample(1000.0 + second, 80.0, "predict", "answered", 1) for second in range(110)]
    samples += [Sample(1015.0 + 5 * n, 400.0, f"explain {'ab'[n % 2]}", "answered", 1) for n in range(10)]
    samples.append(Sample(1050.0, 4000.0, "study", "answered", 100))
    for number, change in changes.items():
        samples[int(number[1:])] = change
    return samples


def missed(samples, goals=GOALS):
    return [row.objective for row in judge(samples, goals) if not row.met]


def test_a_good_run_meets_everything():
    assert missed(run()) == []
    assert {row.objective for row in judge(run(), GOALS)} >= {"explain a, p95", "explain b, p95", "study, p95"}


def slow(at, ms, operation="predict", outcome="answered", images=1):
    return Sample(at, ms, operation, outcome, images)


@pytest.mark.parametrize(
    ("changes", "objectives"),
    [
        ({"_5": slow(1005.0, 9000.0)}, []),  # before the warm-up's end
        ({"_50": slow(1050.0, 9000.0)}, []),  # the slowest of 100 is beyond the 99 % quantile
        ({"_50": slow(1050.0, 9000.0), "_51": slow(1051.0, 9000.0)}, ["predict, p99"]),
        ({"_50": slow(1050.0, 80.0, outcome="wrong")}, []),  # 1 of 111 is within 1 %
        ({"_50": slow(1050.0, 9.0, outcome="wrong"), "_51": slow(1051.0, 9.0, outcome="wrong")}, ["wrong answers"]),
        ({f"_{n}": slow(1000.0 + n, 1.0, outcome="shed") for n in range(50, 62)}, ["shed requests"]),
        ({f"_{n}": slow(1000.0 + n, 150.0) for n in range(40, 95)}, ["predict, p50"]),
        ({f"_{n}": slow(1000.0 + n, 250.0) for n in range(40, 50)}, ["predict, p95"]),
        ({"_112": slow(1025.0, 501.0, "explain a")}, ["explain a, p95"]),
        ({"_120": slow(1050.0, 6000.0, "study", images=100)}, ["study, p95"]),
        ({"_120": slow(1050.0, 1.0)}, ["study, requests"]),
        ({"_112": slow(1025.0, 1.0)}, ["explain a, requests"]),
    ],
)
def test_what_is_missed_is_named(changes, objectives):
    assert missed(run(**changes)) == objectives


def test_hardly_anything_proves_nothing():
    assert {"requests", "throughput", "predict, requests", "study, requests"} <= set(missed([]))
    assert missed(run(), GOALS.model_copy(update={"images_per_s": 3.0})) == ["throughput"]


def test_the_shipped_objectives_allow_no_wrong_answer():
    goals = read_objectives()
    assert goals.wrong == 0
    assert goals.of("explain shap") is not goals.of("explain gradcam")
    assert goals.of("explain some-new-method") is goals.latency["explain *"]
    assert goals.alone("explain gradcam") is not None
    assert goals.of("models") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "latency: Field required"),
        ("[latency.predict]\nleast = 3", "name at least one"),
        ("[latency.predict]\np50_ms = 9\np95_ms = 8", "a larger share cannot be faster"),
        ("wrong = 2\n[latency.predict]\np50_ms = 9", "wrong: "),
        ("[latency.predict]\np90_ms = 9", "latency.predict.p90_ms: Extra"),
    ],
)
def test_a_bad_file_says_where_and_why(tmp_path, text, message):
    (tmp_path / "o.toml").write_text(text)
    with pytest.raises(FileError) as caught:
        read_objectives(tmp_path / "o.toml")
    assert message in str(caught.value)


def test_samples_survive_json_in_order_of_time():
    samples = run()
    assert samples_of(columns_of(samples)) == sorted(samples, key=lambda sample: sample.at)
    assert steady(reversed(samples), 10)[0].at == 1010.0


def test_quantiles_are_values_that_were_seen():
    assert quantile(range(1, 101), 0.95) == 95
    assert quantile([1.0, 2.0, 30.0], 0.99) == 30.0
    assert quantile([], 0.5) != quantile([], 0.5)
