"""Figures by source, on cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.bootstrap import draw
from training.datasets.prepared import Prepared
from training.report import CallRule
from training.shortcut import widened
from training.sources import (
    LARGE_LESIONS,
    Answers,
    calls,
    large_lesion_rule,
    measure,
    over_patients,
    painted,
    scores,
    strata,
    within_patients,
)

HEALTHY = np.array([1])
ARGMAX = CallRule(name="argmax", threshold=None, chosen_by="the most probable class")


def areas(rows: list[tuple[str, str, bool, float, float]], by_level: bool = True) -> dict[str, float]:
    """Areas of images given as patient, sequence, finding, level, score."""
    patients, sequences, present, levels, score = zip(*rows, strict=True)
    known = np.array(levels) if by_level else None
    return within_patients(np.array(score, float), np.array(present, bool), patients, sequences, known)


def test_pairs_are_of_one_patient():
    rows = [("a", "T1", True, 0.5, 2.0), ("a", "T1", False, 0.5, 1.0), ("b", "T1", True, 0.5, 0.0)]
    assert areas(rows) == {"a": 1.0}
    assert areas([*rows, ("b", "T1", False, 0.5, 0.0)]) == {"a": 1.0, "b": 0.5}


def test_pairs_are_of_one_sequence():
    rows = [("a", "T1", True, 0.5, 2.0), ("a", "FLAIR", False, 0.5, 1.0)]
    assert areas(rows) == {}


def test_pairs_of_one_level_differ_by_less_than_the_reach():
    near, far = ("a", "T1", False, 0.61, 3.0), ("a", "T1", False, 0.65, 1.0)
    ill = ("a", "T1", True, 0.5, 2.0)
    assert areas([ill, near, far]) == {"a": 0.0}
    assert areas([ill, near, far], by_level=False) == {"a": 0.5}
    assert areas([ill, ("a", "T1", False, float("nan"), 1.0)]) == {}


def test_a_score_that_is_the_level_tells_nothing_within_levels():
    random = np.random.default_rng(0)
    rows = [("a", "T1", bool(abs(level - 0.5) < 0.25), level, -abs(level - 0.5)) for level in random.random(400)]
    assert areas(rows, by_level=False)["a"] == 1.0
    noise = [(p, s, i, level, float(random.random())) for p, s, i, level, _ in rows]
    assert areas(noise)["a"] == pytest.approx(0.5, abs=0.1)


def test_patients_count_alike_whatever_their_number_of_pairs():
    patients = ["a"] * 2 + ["b"] * 20
    drawn = draw(patients, np.zeros(22, np.int64), 400, seed=0)
    mean = over_patients({"a": 1.0, "b": 0.5}, patients, drawn)
    assert mean is not None
    assert (mean.value, mean.low, mean.high) == (0.75, 0.5, 1.0)
    assert over_patients({}, patients, drawn) is None


def test_a_score_is_the_logarithm_of_the_odds():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.01, 0.98, 0.01]])
    np.testing.assert_allclose(scores(np.log(probabilities), HEALTHY), np.log([1, 0.02 / 0.98]))
    assert scores(np.array([[0.0, 500.0], [0.0, 600.0]]), HEALTHY).tolist() == [
        -500,
        -600,
    ]  # no probability tells these


def test_the_rule_finds_nine_of_ten_large_lesions_and_no_more():
    known = np.arange(40, dtype=float) / 10
    shares = np.full(40, np.nan)
    shares[10:20], shares[20:40] = 0.005, 0.02
    rule = large_lesion_rule(known, shares, ["one"] * 40)
    assert rule is not None
    assert rule.name == LARGE_LESIONS
    logits = np.stack([known, np.zeros(40)], axis=1)
    called = calls(logits, HEALTHY, [rule, ARGMAX])
    assert called[LARGE_LESIONS][20:].sum() == 18
    assert not called[LARGE_LESIONS][:22].any()
    assert called["argmax"].tolist() == [True] * 40  # the first class wins a tie
    assert large_lesion_rule(known, np.full(40, 0.009), ["one"] * 40) is None


def test_every_kind_of_large_lesion_counts_alike():
    known = np.concatenate([np.arange(90.0) + 100, np.arange(10.0)])  # the rare kind scores low
    rule = large_lesion_rule(known, np.full(100, 0.05), ["common"] * 90 + ["rare"] * 10)
    assert rule is not None
    called = calls(np.stack([known, np.zeros(100)], axis=1), HEALTHY, [rule])[LARGE_LESIONS]
    assert called[:90].all()
    assert called[90:].sum() == 8  # a tenth of the two kinds together


def head(row: int | None, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A textured head with a bright spot, or without."""
    y, x = np.mgrid[:side, :side]
    image = np.where((y - 48) ** 2 + (x - 48) ** 2 < 40**2, 110 + 10 * ((y // 6 + x // 6) % 2), 0).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    if row is not None:
        mask[(y - row) ** 2 + (x - 36) ** 2 < 36] = 255
        image[mask > 0] = 250
    return image, mask


@pytest.mark.parametrize("variant", ["navier_stokes", "biharmonic"])
def test_painting_over_removes_the_spot_and_nothing_else(variant: str):
    image, mask = head(40)
    filled = painted(image, mask, variant, 0)
    assert filled is not None
    area = widened(mask)
    assert filled[area].max() < 160
    np.testing.assert_array_equal(filled[~area], image[~area])


def test_the_control_leaves_the_spot_and_changes_another_place():
    image, mask = head(40)
    filled = painted(image, mask, "control", 0)
    assert filled is not None
    np.testing.assert_array_equal(filled[mask > 0], image[mask > 0])
    assert (filled != image).any()
    assert painted(*head(None), "control", 0) is None


def brightest(images: np.ndarray, _text: str = "") -> np.ndarray:
    """Logits of a network that looks at spots."""
    bright = (images.reshape(len(images), -1).max(axis=1) > 200).astype(float)
    return np.stack([4 * bright - 2, 2 - 4 * bright], axis=1)


def by_the_corner(images: np.ndarray, _text: str = "") -> np.ndarray:
    """Logits of a network that looks at the source: a grey corner is a tumour."""
    grey = (images[:, 0, 0] > 0).astype(float)
    return np.stack([4 * grey - 2, 2 - 4 * grey], axis=1)


def two_sources() -> Prepared:
    """Patients a to f of `one` with slices with and without a spot; patients g and h of `two` without."""
    rows = [(*head(30 + number), "one", "abcdef"[number % 6], 0, number / 12) for number in range(12)]
    rows += [(*head(None), "one", "abcdef"[number % 6], 1, number / 12) for number in range(12)]
    rows += [(*head(None), "two", "gh"[number % 2], 1, np.nan) for number in range(6)]
    images, masks, sources, patients, labels, levels = zip(*rows, strict=True)
    stack = np.stack(images)
    stack[:12, 0, 0] = 9
    stack[24:27, 0, 0] = 9
    return Prepared(
        stack,
        np.stack(masks),
        np.array(labels) == 0,
        np.array(labels, np.int64),
        patients,
        tuple(map(str, range(30))),
        sources=sources,
        weightings=("T1",) * 30,
        levels=np.array(levels),
        typed=np.zeros(30, np.bool_),
    )


def report(answer):
    data = two_sources()
    maps = np.zeros((30, 2, 96, 96), np.float32)
    maps[:, 0] = data.masks > 0  # a map that marks the spot
    answers = Answers(answer(data.images), maps, HEALTHY)
    groups = np.unique(data.groups, return_inverse=True)[1]
    return measure(data, answers, groups, [ARGMAX], answer, resamples=50, seed=0)


def values(rows, by: str, name: str) -> dict[str, float]:
    (row,) = [row for row in rows if (row.by, row.name) == (by, name)]
    return {key: estimate.value for key, estimate in row.values.items()}


def test_a_network_that_looks_at_the_lesion_holds_in_every_source():
    found = report(brightest)
    one, two = (values(found.findings, "source", name) for name in ("one", "two"))
    assert one["auroc"] == one["auroc_within_patients"] == one["auroc_within_level"] == 1.0
    assert one["sensitivity/argmax"] == one["sensitivity_large/argmax"] == 1.0
    assert one["false_calls/argmax"] == two["false_calls/argmax"] == 0.0
    assert "auroc" not in two
    assert "sensitivity/argmax" not in two
    maps = values(found.maps, "source", "one")
    for name in ("pointing_game", "share_inside", "cell_precision"):
        assert maps[name] == pytest.approx(1.0, abs=0.01)
        assert maps[f"{name}_random"] < 0.5
    over = values(found.painted, "source", "one")
    assert over == {"navier_stokes/argmax": 0.0, "biharmonic/argmax": 0.0, "control/argmax": 1.0}
    assert [row.name for row in found.painted if row.by == "source"] == ["one"]


def test_a_network_that_looks_at_the_source_is_found_out():
    found = report(by_the_corner)
    assert values(found.findings, "source", "two")["false_calls/argmax"] == 0.5
    over = values(found.painted, "source", "one")
    assert over["navier_stokes/argmax"] == over["biharmonic/argmax"] == 1.0


def test_strata_are_what_is_known_of_some_image():
    data = two_sources()
    shares = np.where(data.labels == 0, 0.02, np.nan)
    shares[0] = 0.001
    found = {(by, name): int(rows.sum()) for by, name, rows in strata(data, shares)}
    assert found == {
        ("source", "one"): 24,
        ("source", "two"): 6,
        ("source and sequence", "one, T1"): 24,
        ("source and sequence", "two, T1"): 6,
        ("sequence", "T1"): 30,
        ("level", "lower third"): 8,
        ("level", "middle third"): 8,
        ("level", "upper third"): 8,
        ("lesion size", "under 0.3 %"): 1,
        ("lesion size", "1 to 3 %"): 11,
    }
