"""What a load test saw: one sample a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["answered", "refused", "shed", "wrong"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        at: when it began, or was meant to begin, in seconds since the epoch.
        ms: milliseconds from then to the last byte of the answer.
        operation: what was asked: `predict`, `explain METHOD`, `study`, `slow client`, `bad input`.
        outcome: `answered` as it should be; `refused`, as bad input must be; `shed`, put off by 429 or 503 with
            Retry-After, or for want of time before the deadline that it gave; `wrong`, anything else.
        images: images or slices answered.
    """

    at: float
    ms: float
    operation: str
    outcome: Outcome
    images: int


def columns_of(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """The samples in order of time, as columns for JSON; names are given by their number in `operations`."""
    ordered = sorted(samples, key=lambda sample: sample.at)
    operations = sorted({sample.operation for sample in ordered})
    return {
        "operations": operations,
        "outcomes": list(OUTCOMES),
        "at": [round(sample.at, 3) for sample in ordered],
        "ms": [round(sample.ms, 2) for sample in ordered],
        "operation": [operations.index(sample.operation) for sample in ordered],
        "outcome": [OUTCOMES.index(sample.outcome) for sample in ordered],
        "images": [sample.images for sample in ordered],
    }


def samples_of(columns: dict[str, list[Any]]) -> list[Sample]:
    """The inverse of `columns_of`.

    Raises:
        KeyError, ValueError, IndexError: they are no such columns.
    """
    rows = zip(*(columns[name] for name in ("at", "ms", "operation", "outcome", "images")), strict=True)
    operations, outcomes = columns["operations"], columns["outcomes"]
    return [Sample(at, ms, operations[number], outcomes[end], images) for at, ms, number, end, images in rows]


def steady(samples: Iterable[Sample], warm_up_s: float) -> list[Sample]:
    """The samples that began at least `warm_up_s` seconds after the first, in order of time."""
    ordered = sorted(samples, key=lambda sample: sample.at)
    return [sample for sample in ordered if sample.at >= ordered[0].at + warm_up_s]


def quantile(ms: Floats | Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; NaN of none.

    Not interpolated: with fewer than 100 values the 99 % quantile is the largest of them.
    """
    values = np.asarray(ms, np.float64)
    return float(np.quantile(values, share, method="inverted_cdf")) if values.size else float("nan")


def by_operation(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of every operation, the operations in alphabetical order."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.operation, []).append(sample)
    return dict(sorted(found.items()))


def duration(samples: Sequence[Sample]) -> float:
    """Seconds from the first beginning to the last end; 0 of no samples."""
    if not samples:
        return 0.0
    return max(sample.at + sample.ms / 1000 for sample in samples) - min(sample.at for sample in samples)
