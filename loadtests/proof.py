"""Whether a share of requests meets an objective, with confidence, from requests that waited in the same queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from loadtests.samples import Floats

Decision = Literal["met", "missed", "unproven"]
_MIN_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Share:
    """A share 0..1 with one-sided confidence bounds, and how many independent requests it is worth."""

    estimate: float
    low: float
    high: float
    effective: float


def design_effect(values: Floats) -> float:
    """How much the mean of values in a row varies beyond that of independent ones; at least 1 (Kish, 1965).

    From the means of blocks of neighbours: requests in one queue wait together. Fewer than `_MIN_BLOCKS` squared values
    are taken as they are.
    """
    length = int(np.sqrt(len(values)))
    blocks = len(values) // length if length else 0
    spread = float(np.var(values))
    if blocks < _MIN_BLOCKS or spread == 0:
        return 1.0
    means = values[: blocks * length].reshape(blocks, length).mean(axis=1)
    return max(1.0, float(np.var(means, ddof=1)) * length / spread)


def share_within(ms: Sequence[float], limit_ms: float, confidence: float) -> Share:
    """The share of latencies within a limit, with Wilson's bounds (1927) for as many requests as they are worth.

    Args:
        ms: in the order of arrival; infinite where there was no right answer.
        limit_ms: the limit.
        confidence: of each bound, 0..1.
    """
    values = np.asarray(ms, np.float64)
    if not values.size:
        return Share(float("nan"), 0.0, 1.0, 0.0)
    capped = np.minimum(values, 10 * limit_ms)  # a few endless waits say no more than that
    count = len(values) / design_effect(capped)
    share, z = float(np.mean(values <= limit_ms)), float(norm.ppf(confidence))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), count)


def decide(ms: Sequence[float], limits: dict[float, float], confidence: float, proven_to: float = 0.95) -> Decision:
    """Whether latencies meet limits in ms by share of requests (0.95: 95 % within).

    Shares up to `proven_to` must be shown: the lower bound reaches them. Larger ones (99 %) would take thousands of
    requests; they must be reached, and are missed where the upper bound does not.
    """
    decisions: set[Decision] = set()
    for wanted, limit in limits.items():
        found = share_within(ms, limit, confidence)
        if found.high < wanted:
            return "missed"
        reached = found.low >= wanted if wanted <= proven_to else found.estimate >= wanted
        decisions.add("met" if reached else "unproven")
    return "unproven" if "unproven" in decisions else "met"
