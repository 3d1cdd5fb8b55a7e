from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from training.bootstrap import draw
from training.findings import finding_called, finding_score, findings, thresholds

CONFIG = SimpleNamespace(classes=("glioma", "none"), healthy=("none",))


def test_thresholds_lie_between_the_scores_that_they_part():
    present = np.array([False, False, False, True, True, True])
    found = thresholds(present, np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]))
    assert found["youden"][0] == pytest.approx(0.5)
    assert found["sensitive"][0] == pytest.approx(0.5)


def test_the_sensitive_point_gives_up_specificity():
    random = np.random.default_rng(0)
    present = np.arange(400) % 2 == 0
    scores = np.clip(random.normal(np.where(present, 0.6, 0.4), 0.15), 0, 1)
    found = thresholds(present, scores)
    assert found["sensitive"][0] < found["youden"][0]
    assert (scores[present] >= found["sensitive"][0]).mean() >= 0.98


def test_one_class_alone_has_no_threshold():
    assert thresholds(np.ones(3, np.bool_), np.ones(3)) == {}


def test_a_finding_is_what_is_not_healthy():
    probs = np.array([[0.7, 0.3], [0.2, 0.8]])
    healthy = np.array([1])
    np.testing.assert_allclose(finding_score(probs, healthy), [0.7, 0.2])
    np.testing.assert_array_equal(finding_called(probs, healthy), [True, False])


def test_thresholds_come_from_the_validation_part_and_are_measured_on_the_other():
    validation = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0, 1])
    probs, labels = np.array([[0.6, 0.4], [0.45, 0.55], [0.05, 0.95]]), np.array([0, 0, 1])
    metrics, points = findings(CONFIG, probs, labels, draw(np.arange(3), labels, 20, seed=0), *validation)
    by_name = {point.name: point for point in points}
    assert by_name["youden"].threshold == pytest.approx(0.5)
    assert by_name["youden"].measured["sensitivity"].value == 0.5
    assert by_name["argmax"].threshold is None
    assert metrics["finding_accuracy"].value == pytest.approx(2 / 3)
    assert metrics["finding_auroc"].value == 1.0


def test_without_healthy_classes_there_is_nothing_to_find():
    config = SimpleNamespace(classes=("a", "b"), healthy=())
    probs, labels = np.eye(2), np.array([0, 1])
    assert findings(config, probs, labels, draw(labels, labels, 5, seed=0), probs, labels) == ({}, ())
