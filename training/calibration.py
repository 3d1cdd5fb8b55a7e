"""Are the probabilities right? One temperature, and what it changes.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from service.validation import Strict
from training.bootstrap import Array, Estimate, Resamples, estimate

BINS = 15
TEMPERATURES = (0.05, 20.0)  # beyond these a temperature says that the validation part is too easy, or noise
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class ReliabilityBin(Strict):
    """Images whose largest probability lies in `low` to `high`: its mean, and the share that was classified right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature in `TEMPERATURES` that minimises the cross-entropy of logits `[N, K]` divided by it.

    Raises:
        ValueError: there is no image.
    """
    if not len(labels):
        raise ValueError("a temperature cannot be fitted without images")
    rows = np.arange(len(labels))
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(wide / np.exp(log_temperature), axis=1)[rows, labels].mean())

    low, high = TEMPERATURES
    found = minimize_scalar(loss, bounds=(np.log(low), np.log(high)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def probabilities(logits: NDArray[np.floating], temperature: float = 1.0) -> Array:
    """Softmax of logits `[N, K]` divided by the temperature: float64 `[N, K]`."""
    return np.asarray(softmax(logits.astype(np.float64) / temperature, axis=1))


def reliability(probs: Array, labels: NDArray[np.int64]) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram that hold images; equal widths."""
    confidence, correct, place = _binned(probs, labels)
    edges = np.linspace(0, 1, BINS + 1)
    bins: list[ReliabilityBin] = []
    for number in np.unique(place):
        inside = place == number
        bins.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                images=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(correct[inside].mean()),
            )
        )
    return tuple(bins)


def calibration_metrics(
    probs: Array, labels: NDArray[np.int64], resamples: Resamples, suffix: str
) -> dict[str, Estimate]:
    """Expected calibration error, negative log-likelihood (nats) and Brier score (0..2), names ending in `suffix`."""
    chosen = probs[np.arange(len(labels)), labels]
    truth = np.eye(probs.shape[1])[labels]
    tiny = np.finfo(np.float64).tiny
    found = {
        "ece": estimate(calibration_error(probs, labels), resampled_error(probs, labels, resamples)),
        "nll": resamples.ratio(-np.log(np.maximum(chosen, tiny))),
        "brier": resamples.ratio(((probs - truth) ** 2).sum(axis=1)),
    }
    return {f"{name}_{suffix}": value for name, value in found.items() if value is not None}


def calibration_error(probs: Array, labels: NDArray[np.int64]) -> float:
    """Expected calibration error over 15 bins of equal width, 0..1, by torchmetrics."""
    # torchmetrics puts a probability of exactly 1 into a sixteenth bin of its own
    rows = torch.from_numpy(np.minimum(probs, _BELOW_ONE))
    error = multiclass_calibration_error(rows, torch.from_numpy(labels), probs.shape[1], n_bins=BINS, norm="l1")
    return float(error)


def resampled_error(probs: Array, labels: NDArray[np.int64], resamples: Resamples) -> Array:
    """Expected calibration error of every resample, `[R]`."""
    confidence, correct, place = _binned(probs, labels)
    gap = (correct - confidence)[:, None] * np.eye(BINS)[place]
    return np.abs(resamples.totals(gap)).sum(axis=1) / resamples.totals(np.ones(len(labels)))


def _binned(probs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.int64]]:
    """Largest probability, whether it was right (0 or 1), and bin number; each `[N]`."""
    confidence = np.minimum(probs.max(axis=1), _BELOW_ONE)
    correct = (probs.argmax(axis=1) == labels).astype(np.float64)
    place = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1])
    return confidence, correct, place.astype(np.int64)
