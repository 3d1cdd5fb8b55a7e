"""The actors that hold the model: from prepared batches to rows of answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from service.assessment import Assessment, judge
from service.backfill.arrow import Array, Table
from service.backfill.files import failed_row
from service.bundle import read_bundle
from service.engine import open_engine, read_golden
from service.errors import RadiolucentError
from service.explainers import find_method, targets
from service.explainers.base import Options, Question, run_together
from service.manifest import Manifest
from service.orientation import turn_from_code
from service.prediction import Prediction, predict
from service.types import UPRIGHT, Attribution, Grey8, Turn

Numbers = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Explaining:
    """What the engines are told.

    Attributes:
        bundle: folder of the model, under the same path on every node.
        method: of the explanation.
        target: `predicted` or a class.
        options: of the method.
        precision: see `open_engine`.
        device: see `open_engine`.
        threads: of one forward pass on the CPU; 0: the node's cores by `share`.
        share: engines on a node.
        numbers: how the maps are kept.
    """

    bundle: Path
    method: str
    target: str
    options: Options
    precision: str = "fp32"
    device: str = "auto"
    threads: int = 0
    share: int = 1
    numbers: Numbers = "float32"


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one image."""

    prediction: Prediction
    attribution: Attribution
    assessment: Assessment


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of an image besides its pixels: how it was turned, and what speaks against it without a model."""

    turn: Turn
    refusals: tuple[str, ...] = ()


class Explainer:
    """One model, ready; Ray gives it one batch after another.

    Args:
        explaining: see there.

    Raises:
        BundleError: the model is not what it claims, or computes something else here.
    """

    def __init__(self, explaining: Explaining) -> None:
        bundle = read_bundle(explaining.bundle)
        self.bundle = bundle
        self._method = find_method(explaining.method, bundle.manifest)
        self._asked = explaining
        threads = explaining.threads or max(1, len(os.sched_getaffinity(0)) // explaining.share)
        self.engine = open_engine(
            bundle,
            threads=threads,
            device=explaining.device,
            precision=explaining.precision,
            gradients=self._method.gradients,
        )
        golden: Grey8 = read_golden(bundle)["images"].astype(np.uint8)[:1]
        (first,) = self._explain(golden, [Prepared(UPRIGHT)])  # also warms up what the method asks
        self._shape = first.attribution.values.shape

    def __call__(self, batch: Table) -> Table:
        """Answer a batch of `read_shards`.

        Returns:
            Its columns without `pixels`, `turn` and `refusals`, and those of the answers: `label`, `probabilities`,
            `findings`, those of `assessed`, `target`, `saliency` (rows of cells, top first, one list), `saliency_rows`,
            `saliency_columns`; null where `problem` says why.
        """
        answers: list[Answer | None] = [None] * batch.num_rows
        problem, detail, warnings = (batch.column(name).to_pylist() for name in ("problem", "detail", "warnings"))
        places = [place for place, failed in enumerate(problem) if failed is None]
        pixels = _pixels(batch)
        images = pixels if len(places) == len(pixels) else pixels[places]
        codes, refused = (batch.column(name).to_pylist() for name in ("turn", "refusals"))
        prepared = [Prepared(turn_from_code(codes[place]), tuple(refused[place])) for place in places]
        for place, found in zip(places, self._answers(images, prepared), strict=True):
            if isinstance(found, Answer):
                answers[place] = found
                warnings[place] = [*warnings[place], *found.assessment.warnings()]
            else:
                failed = failed_row(found)
                problem[place], detail[place] = failed["problem"], failed["detail"]
        kept = batch.drop_columns(["pixels", "turn", "refusals", "problem", "detail", "warnings"])
        columns = {name: kept.column(name) for name in kept.column_names}
        columns |= {"problem": pa.array(problem, pa.string()), "detail": pa.array(detail, pa.string())}
        columns["warnings"] = pa.array(warnings, pa.list_(pa.string()))
        return pa.table(columns | self.columns(answers))

    def _answers(self, images: Grey8, prepared: Sequence[Prepared]) -> list[Answer | Exception]:
        """An answer for each image, or what it fails by; a batch that fails is tried again by halves.

        Raises:
            Exception: every image of a batch fails by what is no fault of images; the run ends and can go on.
        """
        found = self._by_halves(images, prepared) if len(images) else []
        broken = [each for each in found if isinstance(each, Exception) and not isinstance(each, RadiolucentError)]
        if len(broken) == len(found) > 1:
            raise broken[0]
        return found

    def _by_halves(self, images: Grey8, prepared: Sequence[Prepared]) -> list[Answer | Exception]:
        try:
            return list(self._explain(images, prepared))
        except Exception as error:  # noqa: BLE001 - it belongs to the image that it came of
            if len(images) == 1:
                return [error]
        half = len(images) // 2
        return [*self._by_halves(images[:half], prepared[:half]), *self._by_halves(images[half:], prepared[half:])]

    def _explain(self, images: Grey8, prepared: Sequence[Prepared]) -> list[Answer]:
        """Images uint8 `[N, H, W, 1]`, and what is known of each."""
        manifest = self.bundle.manifest
        outputs = self.engine.run(images, sorted(manifest.always | self._method.outputs))
        gates = outputs.more.get("gate", [None] * len(images))
        assessments = [judge(one.refusals, gate, manifest) for one, gate in zip(prepared, gates, strict=True)]
        predictions = [
            predict(logits, manifest, judged.assessable)
            for logits, judged in zip(outputs.logits, assessments, strict=True)
        ]
        questions = [
            Question(
                images[row, ..., 0],
                outputs.row(row),
                targets(self._asked.target, None, prediction.label, manifest),
                prepared[row].turn,
            )
            for row, prediction in enumerate(predictions)
        ]
        found = run_together(self._method, questions, self.engine, self._asked.options, batch=max(16, len(images)))
        rows = zip(predictions, found, assessments, strict=True)
        return [Answer(prediction, one, judged) for prediction, (one,), judged in rows]

    def columns(self, answers: Sequence[Answer | None]) -> dict[str, Array]:
        """The columns of the answers, by name; a row is null where there is no answer."""
        given = [answer for answer in answers if answer is not None]
        place = iter(range(len(given)))
        order = pa.array([None if answer is None else next(place) for answer in answers], pa.int32())
        predictions = [answer.prediction for answer in given]
        rows, columns = self._shape
        maps = np.array([answer.attribution.values for answer in given], self._asked.numbers).reshape(-1)
        made: dict[str, Any] = {
            "label": pa.array([one.label for one in predictions], pa.string()),
            "probabilities": probabilities(predictions, self.bundle.manifest),
            "findings": findings(predictions, self.bundle.manifest),
            **assessed(answers=given, manifest=self.bundle.manifest),
            "target": pa.array([answer.attribution.target.name for answer in given], pa.string()),
            "saliency": pa.FixedSizeListArray.from_arrays(pa.array(maps), rows * columns),
            "saliency_rows": pa.array([rows] * len(given), pa.int16()),
            "saliency_columns": pa.array([columns] * len(given), pa.int16()),
        }
        return {name: values.take(order) for name, values in made.items()}


def probabilities(predictions: Sequence[Prediction], manifest: Manifest) -> Array:
    """A struct of float32 by class."""
    names = manifest.class_names
    columns = [pa.array([one.probabilities[name] for one in predictions], pa.float32()) for name in names]
    return pa.StructArray.from_arrays(columns, list(names))


def findings(predictions: Sequence[Prediction], manifest: Manifest) -> Array:
    """A struct by finding of `probability` float32, `present` bool and `decision`; null where there are no findings."""
    if not manifest.findings:
        return pa.nulls(len(predictions))
    columns = [
        pa.StructArray.from_arrays(
            [
                pa.array([one.findings[place].probability for one in predictions], pa.float32()),
                pa.array([one.findings[place].present for one in predictions], pa.bool_()),
                pa.array([one.findings[place].decision for one in predictions], pa.string()),
            ],
            ["probability", "present", "decision"],
        )
        for place in range(len(manifest.findings))
    ]
    return pa.StructArray.from_arrays(columns, [finding.name for finding in manifest.findings])


def assessed(answers: Sequence[Answer], manifest: Manifest) -> dict[str, Array]:
    """The columns of the assessment, as `service.schemas.Assessed`; `gate` is a struct of float32 by score."""
    texts, given = pa.list_(pa.string()), [answer.assessment for answer in answers]
    gate: Array = pa.nulls(len(given))
    if manifest.gate:
        names = list(manifest.gate_columns)
        values = [[dict(one.gate or {})[name] for one in given] for name in names]
        gate = pa.StructArray.from_arrays([pa.array(each, pa.float32()) for each in values], names)
    return {
        "assessable": pa.array([one.assessable for one in given], pa.string()),
        "reasons": pa.array([list(one.reasons) for one in given], texts),
        "type_assessed": pa.array([one.type_assessed for one in given], pa.bool_()),
        "prediction_set": pa.array([answer.prediction.prediction_set for answer in answers], texts),
        "gate": gate,
    }


def _pixels(batch: Table) -> Grey8:
    """Uint8 `[N, H, W, 1]`: a view of the object store's memory where the batch is one piece."""
    column = batch.column("pixels").combine_chunks()
    whole = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    width = whole.type.byte_width
    side = round(width**0.5)
    values = np.frombuffer(whole.buffers()[1], np.uint8, len(whole) * width, whole.offset * width)
    return values.reshape(len(whole), side, side, 1)
