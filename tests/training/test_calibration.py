from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from training.bootstrap import draw
from training.calibration import (
    calibration_error,
    calibration_metrics,
    fit_temperature,
    probabilities,
    reliability,
    resampled_error,
)


@pytest.fixture(scope="module")
def honest():
    """Labels drawn from the very probabilities that the logits stand for."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 4))
    labels = np.array([random.choice(4, p=row) for row in softmax(logits, axis=1)])
    return logits, labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_over_and_under_confidence(honest, sharpness):
    logits, labels = honest
    assert fit_temperature(logits * sharpness, labels) == pytest.approx(sharpness, rel=0.05)


def test_calibrated_probabilities_have_hardly_any_error(honest):
    logits, labels = honest
    assert calibration_error(probabilities(logits), labels) < 0.02
    assert calibration_error(probabilities(logits * 3), labels) > 0.1


def test_resamples_of_everything_once_give_the_value_itself(honest):
    logits, labels = (part[:300] for part in honest)
    drawn = draw(np.arange(300), labels, 3, seed=0)
    drawn.counts[:] = 1
    probs = probabilities(logits)
    np.testing.assert_allclose(resampled_error(probs, labels, drawn), calibration_error(probs, labels), atol=1e-6)
    found = calibration_metrics(probs, labels, drawn, "before")
    assert found["nll_before"].value == pytest.approx(-np.log(probs[np.arange(300), labels]).mean())
    assert set(found) == {"ece_before", "nll_before", "brier_before"}


def test_reliability_bins_hold_every_image_once(honest):
    logits, labels = honest
    bins = reliability(probabilities(logits), labels)
    assert sum(b.images for b in bins) == len(labels)
    for b in bins:
        assert b.low <= b.confidence <= b.high
        assert abs(b.accuracy - b.confidence) < 0.15


def test_certainty_falls_into_the_last_bin():
    probs = np.eye(3)[[0, 1, 2]]
    (only,) = reliability(probs, np.array([0, 1, 0]))
    assert (only.high, only.images, only.accuracy) == (1.0, 3, pytest.approx(2 / 3))


def test_no_image_no_temperature():
    with pytest.raises(ValueError, match="without images"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64))
