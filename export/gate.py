"""The gate that a graph of reduced precision must pass before it is shipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.engine import Engine
from service.manifest import Profile
from service.types import Float, Grey8

LARGEST_FALL, LEAST_AGREEMENT, LEAST_CORRELATION = 0.005, 0.99, 0.98
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Gate:
    """What less precision changed on labelled images: accuracies and shares 0..1, and the maps' median correlation."""

    accuracy_full: float
    accuracy: float
    labels_agree: float
    map_correlation: float

    def failures(self) -> list[str]:
        """What is not good enough, in words; empty where all is."""
        found: list[str] = []
        if self.accuracy_full - self.accuracy > LARGEST_FALL:
            found.append(f"accuracy falls from {self.accuracy_full:.4f} to {self.accuracy:.4f}")
        if self.labels_agree < LEAST_AGREEMENT:
            found.append(f"labels agree on {self.labels_agree:.4f} of the images, less than {LEAST_AGREEMENT}")
        if not self.map_correlation >= LEAST_CORRELATION:
            found.append(f"heat-maps correlate at {self.map_correlation:.4f}, less than {LEAST_CORRELATION}")
        return found


class NotShipped(Exception):
    """A part failed its gate; the message says by how much."""


def require_gate(full: Engine, reduced: Engine, images: Grey8, labels: NDArray[np.int64]) -> Profile:
    """Measure what less precision changes, and refuse too much; arguments as of `check_gate`.

    Raises:
        NotShipped: it changes too much.
    """
    gate = check_gate(full, reduced, images, labels)
    if failures := gate.failures():
        raise NotShipped(f"{reduced.precision}: {'; '.join(failures)}")
    return Profile(
        images=len(images),
        accuracy_full=gate.accuracy_full,
        accuracy=gate.accuracy,
        labels_agree=gate.labels_agree,
        map_correlation=gate.map_correlation,
        measured_on=reduced.provider,
    )


def check_gate(full: Engine, reduced: Engine, images: Grey8, labels: NDArray[np.int64]) -> Gate:
    """Measure what less precision changes.

    Args:
        full: the float32 graph.
        reduced: the int8 or float16 graph.
        images: of the test part, prepared, uint8 `[N, H, W, 1]`.
        labels: int64 `[N]`.
    """
    logits: list[tuple[Float, Float]] = []
    correlations: list[float] = []
    for start in tqdm(
        range(0, len(images), _BATCH), desc=f"{reduced.precision} against float32", unit="batch", leave=False
    ):
        rows = np.ascontiguousarray(images[start : start + _BATCH])
        a, b = full.run(rows), reduced.run(rows)
        logits.append((a.logits, b.logits))
        for row, target in enumerate(a.logits.argmax(axis=1)):
            maps = np.stack([a.cam[row, target].ravel(), b.cam[row, target].ravel()])
            correlations.append(float(np.corrcoef(maps)[0, 1]))
    before, after = (np.concatenate(each).argmax(axis=1) for each in zip(*logits, strict=True))
    return Gate(
        accuracy_full=float((before == labels).mean()),
        accuracy=float((after == labels).mean()),
        labels_agree=float((before == after).mean()),
        map_correlation=float(np.median(correlations)),
    )
