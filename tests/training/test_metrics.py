"""Point values are scikit-learn's; the resampled ones are held to be the same numbers, resample by resample."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from training.bootstrap import draw
from training.metrics import (
    auroc,
    binary,
    classification,
    confusion,
    from_confusion,
    resampled_auroc,
    resampled_confusion,
)

CLASSES = ("a", "b", "c")


@pytest.fixture
def case():
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, 90)
    scores = random.random((90, 3)) + 0.8 * np.eye(3)[labels]
    return labels, scores / scores.sum(axis=1, keepdims=True), draw(np.arange(90) // 3, labels, 25, seed=2)


def images_of(drawn, row: int) -> np.ndarray:
    """The images of one resample, repeated as often as they were drawn."""
    return np.repeat(np.arange(len(drawn.group)), drawn.counts[row][drawn.group].astype(int))


def test_values_are_scikit_learns(case):
    labels, scores, drawn = case
    predicted = scores.argmax(axis=1)
    found = classification(labels, scores, CLASSES, drawn)
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "kappa": reference.cohen_kappa_score(labels, predicted),
        "mcc": reference.matthews_corrcoef(labels, predicted),
        "f1": reference.f1_score(labels, predicted, average="macro"),
        "f2": reference.fbeta_score(labels, predicted, beta=2, average="macro"),
        "precision": reference.precision_score(labels, predicted, average="macro"),
        "recall": reference.recall_score(labels, predicted, average="macro"),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted),
        "auroc": reference.roc_auc_score(labels, scores, multi_class="ovr"),
        "specificity/b": reference.recall_score(labels != 1, predicted != 1),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].low <= found[name].value <= found[name].high


@pytest.mark.parametrize("row", range(5))
def test_every_resample_has_the_reference_value_of_its_images(case, row):
    labels, scores, drawn = case
    predicted = scores.argmax(axis=1)
    rows = images_of(drawn, row)
    matrices = resampled_confusion(labels, predicted, 3, drawn)
    np.testing.assert_array_equal(matrices[row], confusion(labels[rows], predicted[rows], 3))
    found = from_confusion(matrices)
    assert found["kappa"][row] == pytest.approx(reference.cohen_kappa_score(labels[rows], predicted[rows]))
    assert found["mcc"][row] == pytest.approx(reference.matthews_corrcoef(labels[rows], predicted[rows]))
    f2 = reference.fbeta_score(labels[rows], predicted[rows], beta=2, average=None, labels=[0, 1, 2])
    np.testing.assert_allclose(found["f2"][row], f2)
    areas = resampled_auroc(labels == 1, scores[:, 1], drawn)
    assert areas[row] == pytest.approx(reference.roc_auc_score(labels[rows] == 1, scores[rows, 1]))


def test_ties_count_half_in_the_area():
    present = np.array([True, True, False, False])
    drawn = draw(np.arange(4), present.astype(np.int64), 10, seed=0)
    assert auroc(present, np.array([0.5, 0.5, 0.5, 0.5]), drawn).value == 0.5
    assert auroc(np.ones(4, np.bool_), np.ones(4), drawn) is None


def test_a_class_that_is_absent_is_left_out_of_the_means():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    found = classification(labels, np.eye(3)[predicted], CLASSES, draw(np.arange(4), labels, 10, seed=0))
    assert found["recall"].value == pytest.approx(0.75)
    assert "recall/c" not in found
    assert "auroc/c" not in found


def test_yes_or_no_calls():
    present = np.array([True, True, True, False])
    called = np.array([True, True, False, False])
    found = binary(present, called, draw(np.arange(4), present.astype(np.int64), 50, seed=0), "finding_")
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == {
        "finding_accuracy": 0.75,
        "finding_sensitivity": pytest.approx(2 / 3),
        "finding_specificity": 1.0,
        "finding_balanced_accuracy": pytest.approx(5 / 6),
    }
