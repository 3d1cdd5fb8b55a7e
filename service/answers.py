"""From what was found to what travels over HTTP."""

from __future__ import annotations

import base64
from math import ceil, log10

import numpy as np

from service.bundle import Manifest
from service.schemas import ExplanationAnswer
from service.types import Attribution, Float


def explanation_answer(attribution: Attribution, manifest: Manifest, overlay: bytes | None) -> ExplanationAnswer:
    """One map, with how good such maps were found to be.

    Args:
        attribution: of one image.
        manifest: of the model.
        overlay: PNG bytes, where they are wished.
    """
    (described,) = [e for e in manifest.explanations if e.method == attribution.method]
    return ExplanationAnswer(
        method=attribution.method,
        target=attribution.target.name,
        against=attribution.target.against_name,
        shape=(attribution.values.shape[0], attribution.values.shape[1]),
        saliency=numbers(attribution.values),
        exact=attribution.exact,
        parameters=attribution.parameters,
        evaluations=attribution.evaluations,
        additivity_error=attribution.additivity_error,
        interval=None if attribution.interval is None else numbers(attribution.interval),
        stopped=attribution.stopped,
        quality=described.quality,
        overlay=base64.b64encode(overlay).decode() if overlay is not None else None,
    )


def numbers(values: Float) -> list[list[float]]:
    """Rows of numbers, rounded at the seventh digit of the largest, as float32 is."""
    largest = float(np.abs(values).max())
    digits = 7 - ceil(log10(largest)) if largest > 0 else 0
    return np.round(values.astype(np.float64), digits).tolist()
