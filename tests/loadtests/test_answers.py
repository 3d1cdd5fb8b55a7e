from __future__ import annotations

import json

import pytest

from loadtests.answers import PROBLEM, Expected, Verdict, judge

MAP = {"shape": [2, 3], "saliency": [[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]], "overlay": None}


def result(**changes):
    return {"status": "ok", "label": "a", "probabilities": {"a": 1.0}, "explanations": [MAP]} | changes


def failed(kind):
    return {"status": "failed", "error": {"type": PROBLEM + kind}}


def verdict(body, expected, status=200, retry=None):
    return judge(status, retry, json.dumps(body).encode(), expected)


EXPLAINED = Expected(explained=True)


def test_a_right_answer():
    assert verdict({"results": [result()]}, EXPLAINED) == Verdict("answered", 1)
    predicted = result(explanations=[])
    assert verdict({"results": [predicted, predicted]}, Expected(2)) == Verdict("answered", 2)
    drawn = result(explanations=[MAP | {"overlay": "iVBO"}])
    assert verdict({"results": [drawn]}, Expected(explained=True, overlay=True)).outcome == "answered"


@pytest.mark.parametrize(
    ("results", "fault"),
    [
        ([result(), result()], "2 results for 1 images"),
        ([failed("corrupt-image")], "a good image failed: corrupt-image"),
        ([result(label="b")], "no probability"),
        ([result(explanations=[])], "explanations missing"),
        ([result(explanations=[MAP | {"shape": [3, 3]}])], "not of the shape"),
        ([result(explanations=[MAP | {"saliency": [[0.0] * 3, [0.0] * 2]}])], "not of the shape"),
        ([result(explanations=[MAP | {"saliency": [[0.0] * 3, [0.0, 0.0, float("nan")]]}])], "no number"),
        ([result(explanations=[MAP | {"overlay": "iVBO"}])], "overlay"),
        ([{"status": "ok"}], "not an answer"),
        (7, "not an answer"),
    ],
)
def test_a_wrong_answer_says_why(results, fault):
    found = verdict({"results": results}, EXPLAINED)
    assert found.outcome == "wrong"
    assert fault in found.fault


def test_what_is_no_json_is_wrong():
    assert judge(200, None, b"<html>", EXPLAINED).outcome == "wrong"
    assert judge(0, None, b"", EXPLAINED) == Verdict("wrong", fault="no answer")


@pytest.mark.parametrize("status", [429, 503])
def test_shed_is_only_what_says_when_to_come_again(status):
    assert verdict({}, EXPLAINED, status, "1") == Verdict("shed")
    assert verdict({}, EXPLAINED, status).outcome == "wrong"
    assert verdict({}, EXPLAINED, 500, "1").outcome == "wrong"


def test_a_deadline_that_was_too_short_sheds_only_those_who_gave_one():
    problem = {"type": PROBLEM + "deadline-too-short"}
    assert verdict(problem, Expected(explained=True, hurried=True), 504) == Verdict("shed")
    assert verdict(problem, EXPLAINED, 504).outcome == "wrong"


def test_bad_input_must_be_refused_by_name():
    expected = Expected(problem=(404, "unknown-model"))
    assert verdict({"type": PROBLEM + "unknown-model"}, expected, 404) == Verdict("refused")
    for status, kind in ((404, "unknown-job"), (422, "unknown-model"), (500, "internal"), (200, "unknown-model")):
        assert verdict({"type": PROBLEM + kind}, expected, status).outcome == "wrong"
    assert judge(404, None, b"not found", expected).outcome == "wrong"


def test_a_bad_file_must_fail_alone():
    expected = Expected(3, explained=True, failed={1: "corrupt-image"})
    good = [result(), failed("corrupt-image"), result()]
    assert verdict({"results": good}, expected) == Verdict("refused", 2)
    for bad in (
        [result()] * 3,
        [result(), failed("no-pixel-data"), result()],
        [result(), *[failed("corrupt-image")] * 2],
    ):
        assert verdict({"results": bad}, expected).outcome == "wrong"


def series(**changes):
    answer = {"slices": [{"explanation": MAP}] * 2} | changes
    return {"series": [{"left_out": [], "answers": [answer]}]}


def test_a_study_is_one_series_with_a_map_for_every_slice():
    expected = Expected(2, study=True)
    assert verdict(series(), expected) == Verdict("answered", 2)
    for body in (
        series(slices=[{"explanation": MAP}]),
        series(slices=[{"explanation": MAP | {"shape": [1, 1]}}] * 2),
        {"series": []},
        {"series": [{"left_out": [], "answers": []}]},
        {"series": [{"left_out": [{}], "answers": []}]},
    ):
        assert verdict(body, expected).outcome == "wrong"
