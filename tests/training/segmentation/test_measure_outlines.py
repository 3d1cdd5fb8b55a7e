from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from service.types import Float, PreprocessingSpec
from training.bootstrap import Estimate
from training.datasets.prepared import Prepared
from training.datasets.record import Record
from training.report import Machine
from training.segmentation.measure import best_threshold, by_source, metrics, overlap, overlap_on_source
from training.segmentation.report import Score, SegmentationReport, load_report, load_scores, save_report

MASKS = arrays(np.bool_, (3, 6, 5))


@settings(deadline=None)
@given(MASKS, MASKS)
def test_dice_and_iou_are_scikit_learns(truth, called):
    found = overlap(truth, called)
    for row in range(len(truth)):
        a, b = truth[row].ravel(), called[row].ravel()
        if a.any() or b.any():
            assert found.dice[row] == pytest.approx(f1_score(a, b, zero_division=0.0))
            assert found.iou[row] == pytest.approx(jaccard_score(a, b, zero_division=0.0))
        else:
            assert found.dice[row] == found.iou[row] == 1


def test_masks_are_compared_on_the_pixels_of_the_source():
    mask = np.zeros((60, 120), np.uint8)
    mask[20:40, 30:70] = 1
    record = Record("a", "x", "g", lambda: np.full((60, 120), 100, np.uint8), lambda: mask)
    spec = PreprocessingSpec(field_of_view="frame", margin=0.0, size=32)
    grid: Float = np.zeros((32, 32), np.float32)  # 120 / 32 pixels a cell, and 30 rows of padding above and below
    grid[round(50 / 3.75) : round(70 / 3.75), 8:19] = 1
    (dice,) = overlap_on_source([record], grid[None], spec, 0.5).dice
    assert dice > 0.9
    empty = Record("b", "x", "g", record.load_image)
    found = overlap_on_source([empty], grid[None], spec, 0.5)
    assert (found.outlined[0], found.both[0], found.dice[0]) == (0, 0, 0)


def test_the_threshold_is_the_one_that_outlines_best():
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[:2, 2:6, 2:6] = 255
    data = Prepared(
        masks, masks, np.array([True, True, False, False]), np.zeros(4, np.int64), ("g",) * 4, ("a", "b", "c", "d")
    )
    probabilities = np.where(masks > 0, 0.42, 0.28).astype(np.float32)
    assert 0.28 < best_threshold(probabilities, data) <= 0.42


def test_the_measures_are_means_over_the_images_that_they_are_of():
    truth, called = np.zeros((4, 2, 2), np.bool_), np.zeros((4, 2, 2), np.bool_)
    truth[:3, 0] = True  # the last one is healthy
    called[0, 0] = called[1, 0, 0] = called[3, 1, 1] = True
    found = metrics(
        overlap(truth, called),
        np.array([0, 0, 1, 2]),
        np.array([True, True, True, False]),
        np.array([False, False, False, True]),
        np.array([0, 1, 2, 3]),
        np.array(["a", "b", "none"]),
        50,
        0,
    )
    values = {name: round(value.value, 4) for name, value in found.items()}
    assert values == {
        "dice": round((1 + 2 / 3 + 0) / 3, 4),
        "dice/a": round((1 + 2 / 3) / 2, 4),
        "dice/b": 0,
        "iou": 0.5,
        "iou/a": 0.75,
        "iou/b": 0,
        "dice_overall": round(2 * 3 / 9, 4),
        "found": round(2 / 3, 4),
        "empty_called": 1,
    }
    assert found["dice/a"].low == pytest.approx(2 / 3)
    assert found["dice/a"].high == 1


def test_what_other_sources_give_is_said_by_source_and_weighting():
    truth, called = np.zeros((4, 2, 2), np.bool_), np.zeros((4, 2, 2), np.bool_)
    truth[:2, 0] = True
    called[0, 0] = called[3, 1, 1] = True
    empty = ~truth.any(axis=(1, 2))
    data = Prepared(
        images=truth.astype(np.uint8),
        masks=truth.astype(np.uint8),
        has_mask=~empty,
        labels=empty.astype(np.int64),
        groups=("p", "q", "p", "q"),
        ids=("a", "b", "c", "d"),
        sources=("one", "other", "other", "other"),
        weightings=("", "T1", "T1", "FLAIR"),
    )
    found = by_source(overlap(truth, called), data, ~empty, empty, np.array([0, 1, 0, 1]), 20, 0)
    assert {name: value.value for name, value in found.items()} == {
        "dice/one": 1,
        "dice/other T1": 0,
        "empty_called/other T1": 0,
        "empty_called/other FLAIR": 1,
    }


@given(st.floats(0, 1), st.integers(0, 10**6))
def test_a_report_reads_back(tmp_path_factory, value, pixels):
    folder = tmp_path_factory.mktemp("report")
    report = SegmentationReport(
        network="unet",
        size=32,
        outlined_images=2,
        empty_images=1,
        groups=2,
        groups_by_class={"a": 2},
        threshold=0.5,
        threshold_chosen_by="the test",
        metrics={"dice": Estimate(value=value, low=0, high=1)},
        resamples=10,
        seed=0,
        checkpoint_digest="0",
        split_digest="0",
        data_digest="0",
        command="none",
        date="2026-11-25",
        machine=Machine(processor="p", device="cpu", versions={}),
    )
    scores = [
        Score(id="a", group=1, label="x", dice=value, iou=0.5, pixels=pixels, pixels_called=0),
        Score(id="b", group=2, label="y", dice=None, iou=None, pixels=0, pixels_called=3),
    ]
    save_report(report, scores, folder)
    assert load_report(folder) == report
    assert load_scores(folder) == scores
    assert json.loads((folder / "report.json").read_text())["task"] == "segmentation"
    assert "too narrow" in (folder / "report.md").read_text()
