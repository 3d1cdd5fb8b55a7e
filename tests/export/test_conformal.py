from __future__ import annotations

import numpy as np
import pytest

from export.conformal import (
    Answered,
    TooFewCases,
    fewest_groups,
    fit_conformal,
    fit_limits,
    judge,
    lowest_limit,
    rates,
)

NAMES = ("glioma", "meningioma", "none")
FINDINGS = {"tumour": ("glioma", "meningioma")}


def answered(random: np.random.Generator, patients: int, source: str = "one", shift: float = 2.0) -> Answered:
    """Patients of one class each, one to twelve images; those with many images are easy, as neighbours are alike."""
    sizes = random.choice([1, 12], patients)
    group = np.repeat(np.arange(patients), sizes)
    labels = random.integers(0, 3, patients)[group]
    ease = (random.normal(0, 1, patients) + np.where(sizes > 1, 1.5, -0.5))[group]
    logits = random.normal(0, 1, (len(group), 3))
    logits[np.arange(len(group)), labels] += shift + ease
    odds = np.exp(logits)
    groups = np.array([f"{source}-{number}" for number in group])
    return Answered(odds / odds.sum(axis=1, keepdims=True), labels, groups, np.full(len(group), source))


def one_image_each(images: Answered, random: np.random.Generator) -> Answered:
    order = random.permutation(len(images))
    _, first = np.unique(images.groups[order], return_index=True)
    return images.pick(np.isin(np.arange(len(images)), order[first]))


def test_one_image_a_group_is_the_usual_finite_sample_quantile():
    scores = np.arange(1, 100) / 100
    groups = np.arange(99)
    assert lowest_limit(scores, groups, 0.1) == scores[9]  # the tenth smallest: 0.1 x (99 + 1)
    assert lowest_limit(scores, groups, 0.01) == scores[0]
    assert lowest_limit(scores[:98], groups[:98], 0.1) == scores[8]


def test_groups_count_and_not_images():
    scores = np.concatenate([np.full(1000, 0.9), np.linspace(0.1, 0.5, 19)])
    groups = np.concatenate([np.zeros(1000, np.int64), np.arange(1, 20)])
    assert lowest_limit(scores, groups, 0.1) == pytest.approx(np.linspace(0.1, 0.5, 19)[1])
    assert lowest_limit(scores, np.arange(1019), 0.1) == 0.9


def test_too_few_groups_have_no_limit():
    assert [fewest_groups(rate) for rate in (0.1, 0.05, 0.01, 0.5)] == [9, 19, 99, 1]
    assert lowest_limit(np.arange(9.0), np.arange(9), 0.1) == 0
    with pytest.raises(TooFewCases, match=r"^8 patients .* 0\.1 needs 9 at least$"):
        lowest_limit(np.arange(80.0), np.arange(80) % 8, 0.1)
    images = answered(np.random.default_rng(0), 6)
    with pytest.raises(TooFewCases, match=r"^glioma: \d patients"):
        fit_limits(images, NAMES, FINDINGS, 0.1)


def test_the_stated_error_rate_holds_for_images_of_new_patients():
    """Errors of new patients, over 60 draws of calibration patients; weighting each image alike would break it."""
    random, rate = np.random.default_rng(5), 0.1
    wrong: dict[str, list[float]] = {}
    by_image: list[float] = []
    for _ in range(60):
        known, test = answered(random, 120), one_image_each(answered(random, 300), random)
        limits = fit_limits(known, NAMES, FINDINGS, rate)
        for name, one in judge(test, NAMES, FINDINGS, limits).items():
            wrong.setdefault(name, []).append(float(one.event[one.among].mean()))
        naive = np.quantile(known.probabilities[known.labels == 0, 0], rate)
        by_image.append(float((test.probabilities[test.labels == 0, 0] < naive).mean()))
    for name in ("error/glioma", "error/meningioma", "error/none", "tumour/error/present", "tumour/error/absent"):
        spread = np.std(wrong[name]) / np.sqrt(60)
        assert 0.5 * rate < np.mean(wrong[name]) < rate + 3 * spread, name
    assert np.mean(by_image) > 1.5 * rate


def test_the_rate_holds_for_each_source_where_sources_differ():
    random = np.random.default_rng(6)
    easy, hard = answered(random, 400, "easy", 4), answered(random, 100, "hard", 0.5)
    few = answered(random, 6, "few", -9)  # too few patients for a limit of their own, or to move that of all
    fields = ("probabilities", "labels", "groups", "sources")
    known = Answered(*(np.concatenate([getattr(one, field) for one in (easy, hard, few)]) for field in fields))
    of_all, of_hard = (fit_limits(images, NAMES, FINDINGS, 0.1) for images in (known, hard))
    assert of_all == of_hard
    assert fit_limits(easy, NAMES, FINDINGS, 0.1).labels["glioma"] > of_hard.labels["glioma"]


def test_what_is_fitted_and_measured_is_a_part_of_a_manifest():
    random = np.random.default_rng(7)
    known, other = answered(random, 200), answered(random, 60, "two", 1.0)
    test = Answered(
        *(np.concatenate([getattr(one, f) for one in (known, other)]) for f in ("probabilities", "labels", "groups")),
        np.concatenate([known.sources, other.sources]),
    )
    found = fit_conformal(
        known, NAMES, FINDINGS, error_rate=0.1, fitted_on="drawn numbers", test=test, resamples=50, command="x"
    )
    assert (found.images, found.groups) == (len(known), 200)
    places = ("", "/one", "/two")
    kinds = [*(f"error/{name}" for name in NAMES), "not_decided"]
    kinds += [f"tumour/{name}" for name in ("error/present", "error/absent", "not_decided")]
    assert set(found.metrics) == {kind + place for kind in kinds for place in places}
    missing = test.probabilities[test.labels == 0, 0] < found.labels["glioma"]
    assert found.metrics["error/glioma"].value == pytest.approx(missing.mean())
    bounds, score = found.findings["tumour"], test.probabilities[:, :2].sum(axis=1)
    decided = (score >= bounds.present_from) != (score <= bounds.absent_to)
    assert found.metrics["tumour/not_decided"].value == pytest.approx(1 - decided.mean())
    low, value, high = (getattr(found.metrics["error/none"], name) for name in ("low", "value", "high"))
    assert low <= value <= high and low < high


def test_what_overlaps_and_what_lies_between_is_not_decided():
    images = Answered(
        np.array([[0.1, 0.9], [0.4, 0.6], [0.9, 0.1]]), np.array([0, 0, 1]), np.array(["a", "b", "c"]), np.full(3, "s")
    )
    names, findings = ("none", "tumour"), {"tumour": ("tumour",)}
    limits = fit_limits(images, names, findings, 0.5)
    overlap = limits.findings["tumour"].model_copy(update={"present_from": 0.5, "absent_to": 0.7})
    gap = limits.findings["tumour"].model_copy(update={"present_from": 0.8, "absent_to": 0.2})
    for bounds, expected in ((overlap, [False, True, False]), (gap, [False, True, False])):
        judged = judge(images, names, findings, type(limits)({}, {"tumour": bounds}))
        assert judged["tumour/not_decided"].event.tolist() == expected
        assert "error/none" not in judged
    found = rates(images, judged, resamples=10)
    assert found["tumour/not_decided"].value == pytest.approx(1 / 3)


def test_limits_that_leave_a_gap_meet_and_the_most_probable_label_is_always_possible():
    share = np.concatenate([np.full(30, 0.001), np.full(30, 0.999)])
    images = Answered(
        np.stack([1 - share, share], axis=1),
        (share > 0.5).astype(np.int64),
        np.arange(60).astype(np.str_),
        np.full(60, "one"),
    )
    names, findings = ("none", "tumour"), {"tumour": ("tumour",)}
    limits = fit_limits(images, names, findings, 0.1)
    bounds = limits.findings["tumour"]
    assert bounds.absent_to < bounds.present_from == pytest.approx(0.5)
    assert bounds.absent_to == pytest.approx(bounds.present_from)
    between = Answered(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 1]), images.groups[:2], images.sources[:2])
    judged = judge(between, names, findings, limits)
    assert not any((one.event & one.among).any() for one in judged.values())  # no error, and nothing is open
