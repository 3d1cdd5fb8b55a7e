"""Whether an answer is the right one for what was asked: shape and number, not diagnoses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.samples import Outcome

PROBLEM = "urn:radiolucent:problem:"
SHEDDING = (429, 503)
TOO_SHORT = (504, "deadline-too-short")


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must be.

    Attributes:
        images: results, one for each image; the slices of a study.
        explained: whether every result must hold a saliency map.
        overlay: whether with a picture.
        failed: kind of problem by number of the image that must fail, alone.
        problem: status and kind of problem where the whole request must be refused.
        study: whether it is that of POST /v1/studies, one series.
        hurried: whether the service may say that the deadline given was too short, as it will under load.
    """

    images: int = 1
    explained: bool = False
    overlay: bool = False
    failed: Mapping[int, str] = field(default_factory=dict[int, str])
    problem: tuple[int, str] | None = None
    study: bool = False
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request: `fault` says what is wrong where the outcome is `wrong`; `images` were answered."""

    outcome: Outcome
    images: int = 0
    fault: str = ""


def judge(status: int, retry_after: str | None, content: bytes, expected: Expected) -> Verdict:
    """What an answer is worth; it holds nothing of the answer but numbers, names of fields and kinds of problems.

    Args:
        status: of HTTP; 0 where there was no answer.
        retry_after: the header of this name.
        content: the body.
        expected: what it must be.
    """
    if status in SHEDDING and retry_after is not None:
        return Verdict("shed")
    if expected.hurried and _refusal(status, content, TOO_SHORT).outcome == "refused":
        return Verdict("shed")
    if expected.problem is not None:
        return _refusal(status, content, expected.problem)
    if status != 200:
        return Verdict("wrong", fault=f"status {status}" if status else "no answer")
    try:
        body = json.loads(content)
        fault = _study_fault(body, expected) if expected.study else _fault(body, expected)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        fault = f"not an answer: {type(error).__name__}"
    if fault:
        return Verdict("wrong", fault=fault)
    return Verdict("refused" if expected.failed else "answered", expected.images - len(expected.failed))


def _refusal(status: int, content: bytes, problem: tuple[int, str]) -> Verdict:
    wanted, kind = problem
    try:
        told = json.loads(content).get("type", "")
    except (ValueError, AttributeError):
        told = ""
    if (status, told) == (wanted, PROBLEM + kind):
        return Verdict("refused")
    return Verdict("wrong", fault=f"status {status} instead of {wanted} {kind}")


def _fault(body: dict[str, Any], expected: Expected) -> str:
    results = body["results"]
    if len(results) != expected.images:
        return f"{len(results)} results for {expected.images} images"
    for number, result in enumerate(results):
        kind = expected.failed.get(number)
        if kind is not None:
            if result["status"] != "failed" or result["error"]["type"] != PROBLEM + kind:
                return f"an image that had to fail ({kind}) did not, or otherwise"
        elif fault := _result_fault(result, expected):
            return fault
    return ""


def _result_fault(result: dict[str, Any], expected: Expected) -> str:
    if result["status"] != "ok":
        return f"a good image failed: {result['error']['type'].removeprefix(PROBLEM)}"
    if result["label"] not in result["probabilities"]:
        return "the label has no probability"
    if bool(result["explanations"]) != expected.explained:
        return "explanations missing or unasked for"
    return next(filter(None, (_map_fault(one, overlay=expected.overlay) for one in result["explanations"])), "")


def _map_fault(explanation: dict[str, Any], *, overlay: bool) -> str:
    """What is wrong with a map: its rows and columns, a value that is no number, the picture."""
    rows, columns = explanation["shape"]
    saliency = explanation["saliency"]
    if len(saliency) != rows or any(len(row) != columns for row in saliency):
        return "a map is not of the shape that it states"
    if not all(map(math.isfinite, (value for row in saliency for value in row))):
        return "a map holds what is no number"
    return "" if bool(explanation.get("overlay")) == overlay else "an overlay missing or unasked for"


def _study_fault(body: dict[str, Any], expected: Expected) -> str:
    (series,) = body["series"]
    if series["left_out"]:
        return f"{len(series['left_out'])} slices were left out"
    if not series["answers"]:
        return "no model answered the series"
    for answer in series["answers"]:
        if len(answer["slices"]) != expected.images:
            return f"{len(answer['slices'])} results for {expected.images} slices"
        faults = (_map_fault(one["explanation"], overlay=False) for one in answer["slices"])
        if fault := next(filter(None, faults), ""):
            return fault
    return ""
