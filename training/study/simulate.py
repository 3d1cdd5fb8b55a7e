"""Studies that never took place, from known parameters, in the files of a real one: to prove what an analysis finds.

The parameters' marks on the results are computed in `training.study.expected`, by integration, not from the simulated
data.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field
from scipy.special import expit

from service.validation import Strict
from training.files import write_atomically
from training.study.records import ARMS, CASES, READINGS, STUDY, Case, Reading, StudiedModel, Study

PARAMETERS = "parameters.json"
CLASSES = ("glioma", "meningioma", "pituitary", "no_tumor")
_POSITIVE = 3  # the first three
_START = datetime(2026, 1, 5, 8, tzinfo=UTC)


class LikertItem(Strict):
    """Ratings are a normal variable, rounded and cut to 1 to 5; `mean` is that of the variable."""

    name: str
    mean: float


class Parameters(Strict):
    """What readings are made from.

    A reader's own answer is right with the probability expit(skill + benefit in the arm with the explanation + learning
    in the second period + a deviation of the reader + one of the case + one of the reader with the explanation); the
    deviations are normal. A wrong answer is any other class with the same probability. With the explanation a reader
    gives the model's class instead with the probability `reliance`, whatever it is. The model is right with the
    probability `model_accuracy`. Half of the cases are of the last class, healthy.

    Times are log-normal: `seconds` is the geometric mean without the explanation, `ratio` the factor with it.
    Confidence is normal, rounded and cut to 0 to 100. `*_sd` are standard deviations: `reader`, `case`, and what is
    left.
    """

    readers: int = Field(default=6, ge=2)
    cases: int = Field(default=60, ge=4)
    design: Literal["crossover", "parallel"] = "crossover"
    skill: float = 0.8
    benefit: float = 0.5
    learning: float = 0.1
    reader_sd: float = 0.35
    case_sd: float = 0.8
    benefit_sd: float = 0.15
    reliance: float = Field(default=0.3, ge=0, le=1)
    model_accuracy: float = Field(default=0.8, gt=0, lt=1)
    seconds: float = 42.0
    ratio: float = 0.85
    seconds_reader_sd: float = 0.25
    seconds_case_sd: float = 0.2
    seconds_sd: float = 0.4
    confidence: float = 58.0
    confidence_gain: float = 6.0
    confidence_reader_sd: float = 6.0
    confidence_case_sd: float = 5.0
    confidence_sd: float = 12.0
    items: tuple[LikertItem, ...] = (
        LikertItem(name="clear", mean=3.9),
        LikertItem(name="plausible", mean=3.5),
        LikertItem(name="relevant", mean=3.3),
        LikertItem(name="useful", mean=3.6),
        LikertItem(name="trust", mean=2.9),
    )
    rating_reader_sd: float = 0.3
    rating_case_sd: float = 0.3
    rating_sd: float = 0.8


def simulate(parameters: Parameters, seed: int) -> tuple[Study, list[Case], list[Reading]]:
    """One study; the same seed gives the same study."""
    random = np.random.default_rng(seed)
    study = Study(
        name=f"simulated study, seed {seed}",
        seed=seed,
        design=parameters.design,
        washout_days=28 if parameters.design == "crossover" else 0,
        classes=CLASSES,
        positive=CLASSES[:_POSITIVE],
        items=tuple(item.name for item in parameters.items),
        model=StudiedModel(id="simulated", version="1", digest="0" * 64),
        method="simulated",
        created=_START.isoformat(),
    )
    truth = np.where(np.arange(parameters.cases) % 2, _POSITIVE, np.arange(parameters.cases) // 2 % _POSITIVE)
    right = random.random(parameters.cases) < parameters.model_accuracy
    model = np.where(right, truth, _other(truth, random))
    cases = [_case(number, int(truth[number]), int(model[number]), random) for number in range(parameters.cases)]
    return study, cases, _readings(parameters, truth, model, random)


def _case(number: int, truth: int, model: int, random: Generator) -> Case:
    score = random.uniform(0.5, 1) if model < _POSITIVE else random.uniform(0, 0.5)
    name = f"c{number + 1:03}"
    return Case(
        case=name, truth=CLASSES[truth], model_label=CLASSES[model], model_score=round(score, 4), training=False
    )


def _readings(parameters: Parameters, truth: np.ndarray, model: np.ndarray, random: Generator) -> list[Reading]:
    """All answers at once, `[2, R, C]`, then the readings that the design asks for."""
    p, shape = parameters, (2, parameters.readers, parameters.cases)
    arm, first = np.indices(shape)[0], _first_arm(parameters, random)
    period = np.where(arm == first, 1, 2) if p.design == "crossover" else np.ones(shape, np.int64)
    logit = p.skill + p.benefit * arm + p.learning * (period == 2) + _normal(random, shape, p.reader_sd, p.case_sd, 0)
    logit = logit + p.benefit_sd * random.normal(size=(p.readers, 1)) * arm
    own = np.where(random.random(shape) < expit(logit), truth, _other(np.broadcast_to(truth, shape), random))
    diagnosis = np.where((random.random(shape) < p.reliance) & (arm == 1), model, own)
    level = p.confidence + p.confidence_gain * arm
    noise = _normal(random, shape, p.confidence_reader_sd, p.confidence_case_sd, p.confidence_sd)
    confidence = np.clip(np.round(level + noise), 0, 100)
    times = np.log(p.seconds) + np.log(p.ratio) * arm
    seconds = np.exp(times + _normal(random, shape, p.seconds_reader_sd, p.seconds_case_sd, p.seconds_sd))
    means = [
        item.mean + _normal(random, shape[1:], p.rating_reader_sd, p.rating_case_sd, p.rating_sd) for item in p.items
    ]
    ratings = np.clip(np.round(np.stack(means)), 1, 5).astype(int)
    position = random.permuted(np.broadcast_to(np.arange(p.cases), shape), axis=2)
    made = np.ones(shape, np.bool_) if p.design == "crossover" else arm == first
    return [
        Reading(
            reader=f"r{reader + 1}",
            case=f"c{case + 1:03}",
            arm=ARMS[place],
            period=int(period[place, reader, case]),
            position=int(position[place, reader, case]) + 1,
            diagnosis=CLASSES[diagnosis[place, reader, case]],
            confidence=float(confidence[place, reader, case]),
            seconds=round(float(seconds[place, reader, case]), 3),
            training=False,
            ratings=tuple(int(r) for r in ratings[:, reader, case]) if place else (None,) * len(p.items),
        )
        for place, reader, case in np.argwhere(made).tolist()
    ]


def _first_arm(parameters: Parameters, random: Generator) -> np.ndarray:
    """The arm that a reader sees a case in first `[R, C]`: half of the cases each; in parallel half of the readers."""
    if parameters.design == "parallel":
        return np.broadcast_to((np.arange(parameters.readers) % 2)[:, None], (parameters.readers, parameters.cases))
    halves = np.arange(parameters.cases) % 2
    pairs = [random.permutation(halves) for _ in range((parameters.readers + 1) // 2)]
    return np.stack([pairs[reader // 2] ^ (reader % 2) for reader in range(parameters.readers)])


def _normal(random: Generator, shape: tuple[int, ...], reader: float, case: float, rest: float) -> np.ndarray:
    """Deviations `shape`, whose last two axes are readers and cases; the first two are shared along the others."""
    of_readers, of_cases = random.normal(size=(shape[-2], 1)), random.normal(size=shape[-1])
    return reader * of_readers + case * of_cases + rest * random.normal(size=shape)


def _other(classes: np.ndarray, random: Generator) -> np.ndarray:
    """Any other class, each with the same probability."""
    return (classes + random.integers(1, len(CLASSES), size=classes.shape)) % len(CLASSES)


def save_study(
    out: Path, study: Study, cases: Sequence[Case], readings: Sequence[Reading], parameters: Parameters
) -> None:
    """Write the study as an export would be, and `parameters.json` beside it."""
    lines = (
        [
            c.case,
            c.truth,
            c.model_label,
            c.model_score,
            c.model_score,
            int(c.training),
            sha256(c.case.encode()).hexdigest(),
        ]
        for c in cases
    )
    head = ["case", "truth", "model_label", "model_probability", "model_score", "training", "file_sha256"]
    _write_csv(out / CASES, head, lines)
    head = ["reader", "case", "arm", "period", "position", "diagnosis", "confidence", "seconds", *study.items]
    head += ["comment", "started_at", "answered_at", "training"]
    _write_csv(out / READINGS, head, (_line(study, reading) for reading in readings))
    write_atomically(out / PARAMETERS, (parameters.model_dump_json(indent=1) + "\n").encode())
    write_atomically(out / STUDY, (study.model_dump_json(indent=1) + "\n").encode())


def _line(study: Study, r: Reading) -> list[object]:
    began = _START + timedelta(days=study.washout_days * (r.period - 1), minutes=3 * r.position)
    ended = began + timedelta(seconds=r.seconds)
    ratings = ["" if rating is None else rating for rating in r.ratings]
    answer = [r.diagnosis, f"{r.confidence:g}", r.seconds, *ratings, ""]
    return [
        r.reader,
        r.case,
        r.arm,
        r.period,
        r.position,
        *answer,
        began.isoformat(),
        ended.isoformat(),
        int(r.training),
    ]


def _write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    write_atomically(path, buffer.getvalue().encode())
