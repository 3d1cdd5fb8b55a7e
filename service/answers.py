"""From what was found to what travels over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from math import ceil, log10
from typing import Any

import numpy as np

from service.assessment import Assessment
from service.manifest import Manifest
from service.prediction import Prediction
from service.schemas import ExplanationAnswer, FindingAnswer, ImageAnswer, ImageFailure
from service.types import Attribution, Encoding, Float


def explanation_answer(
    attribution: Attribution, manifest: Manifest, overlay: bytes | None, encoding: Encoding = "numbers"
) -> ExplanationAnswer:
    """One map, with how good such maps were found to be.

    Args:
        attribution: of one image.
        manifest: of the model.
        overlay: bytes of the picture, where it is wished.
        encoding: of the values.
    """
    (described,) = [e for e in manifest.explanations if e.method == attribution.method]
    return ExplanationAnswer(
        method=attribution.method,
        target=attribution.target.name,
        against=attribution.target.against_name,
        shape=(attribution.values.shape[0], attribution.values.shape[1]),
        saliency=encoded(attribution.values, encoding),
        encoding=encoding,
        exact=attribution.exact,
        parameters=attribution.parameters,
        evaluations=attribution.evaluations,
        additivity_error=attribution.additivity_error,
        interval=None if attribution.interval is None else encoded(attribution.interval, encoding),
        stopped=attribution.stopped,
        quality=described.quality,
        overlay=base64.b64encode(overlay).decode() if overlay is not None else None,
    )


def finding_answers(prediction: Prediction) -> dict[str, FindingAnswer]:
    """What is decided of the findings of one image, by name."""
    return {
        one.name: FindingAnswer(probability=one.probability, present=one.present, decision=one.decision)
        for one in prediction.findings
    }


def assessed_fields(assessment: Assessment, prediction_set: Sequence[str] | None) -> dict[str, Any]:
    """The fields of `service.schemas.Assessed`."""
    return {
        "assessable": assessment.assessable,
        "reasons": list(assessment.reasons),
        "type_assessed": assessment.type_assessed,
        "prediction_set": None if prediction_set is None else list(prediction_set),
        "gate": None if assessment.gate is None else dict(assessment.gate),
    }


def encoded(values: Float, encoding: Encoding) -> list[list[float]] | str:
    """Values float32 `[h, w]` as they travel."""
    if encoding == "numbers":
        return numbers(values)
    little = values.astype("<f2" if encoding == "float16" else "<f4")
    return base64.b64encode(little.tobytes()).decode()


def decoded(answer: ExplanationAnswer) -> Float:
    """The reverse: float32 `[h, w]`."""
    if isinstance(answer.saliency, list):
        return np.array(answer.saliency, np.float32)
    kind = "<f2" if answer.encoding == "float16" else "<f4"
    return np.frombuffer(base64.b64decode(answer.saliency), kind).astype(np.float32).reshape(answer.shape)


def maps_file(results: Sequence[ImageAnswer | ImageFailure]) -> bytes:
    """All maps of an answer as one NumPy file: float32 `[images, targets, h, w]`, not-a-number where an image failed.

    Raises:
        ValueError: every image failed, or one has more targets than another.
    """
    maps = [None if isinstance(r, ImageFailure) else np.stack([decoded(e) for e in r.explanations]) for r in results]
    shape = next((each.shape for each in maps if each is not None), None)
    if shape is None:
        raise ValueError("no image was explained")
    nothing = np.full(shape, np.nan, np.float32)
    file = BytesIO()
    np.save(file, np.stack([nothing if each is None else each for each in maps]), allow_pickle=False)
    return file.getvalue()


def numbers(values: Float) -> list[list[float]]:
    """Rows of numbers, rounded at the seventh digit of the largest, as float32 is."""
    largest = float(np.abs(values).max())
    digits = 7 - ceil(log10(largest)) if largest > 0 else 0
    return np.round(values.astype(np.float64), digits).tolist()
