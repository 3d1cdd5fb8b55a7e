"""Every method of the registry, on the shipped OCT model: what all of them promise, and what some do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from export.golden import phantoms
from service.bundle import read_bundle
from service.engine import open_engine
from service.errors import BudgetTooSmall, DeadlineTooShort, UnknownMethod, UnknownTarget
from service.explainers import METHODS, base, check_target, find_method, kernelshap, offered, targets
from service.explainers.base import Options, Question, run_together
from service.explainers.masking import baseline_image, composed, field_of_view, spread, superpixels
from service.settings import SHIPPED_MODELS

BUNDLE = read_bundle(SHIPPED_MODELS / "retinal-oct-oculusnet")
MANIFEST = BUNDLE.manifest
NAMES = list(offered(MANIFEST))
BUDGETS = {"shap": 20, "kernelshap": 80, "rise": 16, "lime": 16, "integrated_gradients": 4, "occlusion": 16}
LINEAR = {
    "gradcam",
    "hirescam",
    "xgradcam",
    "fastshap",
    "integrated_gradients",
    "input_x_gradient",
    "occlusion",
    "rise",
}
CNV = targets("CNV", None, "CNV", MANIFEST)
IMAGES = phantoms(224, 3)[..., 0][:3]


def options(method: str, **more: object) -> Options:
    return Options(budget=BUDGETS.get(method, 4 if METHODS[method].budget else None), **more)


@pytest.fixture(scope="module")
def engine():
    return open_engine(BUNDLE, device="cpu")


def explain(engine, method: str, images, target="predicted", against=None, **more):
    outputs = engine.run(images[..., None], sorted(METHODS[method].outputs))
    names = MANIFEST.class_names
    questions = []
    for row, image in enumerate(images):
        predicted = names[int(outputs.logits[row].argmax())]
        questions.append(Question(image, outputs.row(row), targets(target, against, predicted, MANIFEST)))
    return run_together(METHODS[method], questions, engine, options(method, **more))


def test_the_model_offers_every_method_of_the_registry():
    assert set(NAMES) == set(METHODS)


@pytest.mark.parametrize("method", NAMES)
def test_one_finite_signed_map_for_each_target_in_order(engine, method):
    ((*found,),) = explain(engine, method, IMAGES[:1], target="all")
    assert [a.target.name for a in found] == list(MANIFEST.class_names)
    for a in found:
        assert a.method == method
        assert a.values.dtype == np.float32
        assert a.values.ndim == 2
        assert np.isfinite(a.values).all()
        assert 224 % a.values.shape[0] == 0
        assert a.interval is None or (a.interval.shape == a.values.shape and (a.interval >= 0).all())
    if METHODS[method].targeted:
        assert np.ptp(np.stack([a.values for a in found]), axis=0).max() > 0
    assert (found[0].evaluations == 0) == (METHODS[method].budget == 0)


@pytest.mark.parametrize("method", NAMES)
def test_an_image_is_explained_alike_alone_in_a_batch_and_in_another_order(engine, method):
    first, second, third = explain(engine, method, IMAGES)
    ends, middle = explain(engine, method, IMAGES[::-2]), explain(engine, method, IMAGES[1:2])
    tolerance = 5e-2 if METHODS[method].gradients else 2e-3  # gradients jump at kinks
    for a, b in zip((third, first, second), (*ends, *middle), strict=True):
        scale = np.abs(a[0].values).max()
        assert a[0].target == b[0].target
        np.testing.assert_allclose(b[0].values, a[0].values, atol=tolerance * scale)


@pytest.mark.parametrize("method", NAMES)
def test_the_seed_decides_and_the_global_generator_is_left_alone(engine, method):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    one = explain(engine, method, IMAGES[:1], seed=5)[0][0].values
    again = explain(engine, method, IMAGES[:1], seed=5)[0][0].values
    assert np.array_equal(one, again)
    assert np.array_equal(np.random.get_state()[1], before)
    if method in {"kernelshap", "gradient_shap", "smoothgrad", "rise", "lime"}:
        assert not np.array_equal(one, explain(engine, method, IMAGES[:1], seed=6)[0][0].values)


@pytest.mark.parametrize("method", sorted(LINEAR))
def test_a_contrast_is_the_difference_where_the_method_is_linear_in_the_logits(engine, method):
    names = MANIFEST.class_names
    a, b = (explain(engine, method, IMAGES[:1], target=name)[0][0].values for name in names[:2])
    ((contrast,),) = explain(engine, method, IMAGES[:1], target=names[0], against=names[1])
    assert (contrast.target.against_name, contrast.target.against) == (names[1], 1)
    scale = np.abs(contrast.values).max()
    np.testing.assert_allclose(contrast.values, a - b, atol=(5e-2 if METHODS[method].gradients else 1e-3) * scale)


@pytest.mark.parametrize("method", ["gradcam++", "layercam"])
def test_a_contrast_of_the_others_is_that_of_the_difference_of_weights(engine, method):
    names = MANIFEST.class_names
    ((one,),) = explain(engine, method, IMAGES[:1], target=names[0], against=names[1])
    ((other,),) = explain(engine, method, IMAGES[:1], target=names[1], against=names[0])
    if method == "layercam":  # positive weights less negative weights are all weights
        cam = engine.run(IMAGES[:1, ..., None]).cam[0]
        np.testing.assert_allclose(one.values - other.values, cam[0] - cam[1], atol=1e-3)
    assert not np.allclose(one.values, other.values)


@pytest.mark.parametrize("baseline", ["blur", "mean", "black"])
@pytest.mark.parametrize("method", ["shap", "kernelshap", "fastshap"])
def test_shapley_values_add_up_to_the_logit_less_that_of_the_baseline(engine, method, baseline):
    ((*found,),) = explain(engine, method, IMAGES[:1], target="all", baseline=baseline)
    hidden = baseline_image(IMAGES[0], "blur" if method == "fastshap" else baseline)
    whole, empty = engine.logits(np.stack([IMAGES[0], hidden]))
    sums = np.array([a.values.sum(dtype=np.float64) for a in found])
    np.testing.assert_allclose(sums, whole - empty, atol=1e-3)
    if method != "fastshap":  # there it says what was missing before
        assert max(a.additivity_error for a in found) < 1e-4


def test_integrated_gradients_add_up_as_far_as_they_say(engine):
    ((found,),) = explain(engine, "integrated_gradients", IMAGES[:1])
    hidden = baseline_image(IMAGES[0], "blur")
    whole, empty = engine.logits(np.stack([IMAGES[0], hidden]))[:, found.target.index]
    error = abs(float(found.values.sum(dtype=np.float64)) - float(whole - empty))
    assert error == pytest.approx(found.additivity_error, abs=1e-3)


def test_kernel_shap_with_all_coalitions_is_the_shapley_value():
    random = np.random.default_rng(0)
    players = 6
    table = random.normal(size=(2**players, 2))
    masks = (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(np.bool_)
    scores = table - table[0]
    expected = np.zeros((players, 2))
    from math import factorial

    for number, mask in enumerate(masks):
        for player in np.flatnonzero(~mask):
            weight = factorial(int(mask.sum())) * factorial(players - int(mask.sum()) - 1) / factorial(players)
            expected[player] += weight * (table[number | 1 << int(player)] - table[number])
    inner = masks[1:-1]
    found = kernelshap.shapley_regression(inner, scores[1:-1], scores[-1], kernelshap.kernel(inner))
    np.testing.assert_allclose(found, expected, atol=1e-9)


class Slow:
    """A linear model that takes a millisecond for each image, by a clock of its own."""

    def __init__(self) -> None:
        shape = len(MANIFEST.class_names), *IMAGES.shape[1:]
        self._weights = np.random.default_rng(6).normal(0, 1e-4, shape).astype(np.float32)
        self.now = 0.0

    def logits(self, images):
        self.now += len(images) / 1000
        return np.tensordot(images.astype(np.float32), self._weights, [[1, 2], [1, 2]])

    def gradient(self, pixels, weights):
        self.now += len(pixels) / 1000
        return np.tensordot(weights, self._weights, 1)


def hurried(engine, monkeypatch, method: str, deadline_ms: int):
    slow = Slow()
    monkeypatch.setattr(base, "monotonic", lambda: slow.now)
    question = Question(
        IMAGES[0], engine.run(IMAGES[:1, ..., None]).row(0), targets("predicted", None, "CNV", MANIFEST)
    )
    options = Options(budget=100_000, deadline_ms=deadline_ms)
    ((found,),) = run_together(METHODS[method], [question], slow, options, batch=4)
    assert 1000 * slow.now <= deadline_ms + 4
    return found


@pytest.mark.parametrize("deadline_ms", [60, 110])
@pytest.mark.parametrize("method", ["shap", "kernelshap", "rise", "lime", "gradient_shap", "smoothgrad"])
def test_a_deadline_ends_with_what_there_is_and_within_a_batch(engine, monkeypatch, method, deadline_ms):
    found = hurried(engine, monkeypatch, method, deadline_ms)
    assert found.stopped == "deadline"
    assert deadline_ms - 4 <= found.evaluations <= deadline_ms + 4
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("method", ["kernelshap", "rise", "lime", "occlusion", "integrated_gradients"])
def test_a_deadline_before_there_is_any_result_says_so_and_in_time(engine, monkeypatch, method):
    with pytest.raises(DeadlineTooShort):
        hurried(engine, monkeypatch, method, 20)


@pytest.mark.parametrize("method", ["shap", "kernelshap", "rise", "lime", "occlusion"])
def test_a_deadline_that_is_met_changes_nothing(engine, method):
    question = Question(
        IMAGES[0], engine.run(IMAGES[:1, ..., None]).row(0), targets("predicted", None, "CNV", MANIFEST)
    )
    free, met = (
        run_together(METHODS[method], [question], engine, options(method, deadline_ms=limit))[0][0]
        for limit in (None, 10_000_000)
    )
    assert met.stopped == free.stopped
    np.testing.assert_allclose(met.values, free.values, atol=1e-4)


@pytest.mark.parametrize(("method", "budget"), [("kernelshap", 10), ("occlusion", 5)])
def test_a_budget_that_tells_nothing_is_refused(engine, method, budget):
    question = Question(
        IMAGES[0], engine.run(IMAGES[:1, ..., None]).row(0), targets("predicted", None, "CNV", MANIFEST)
    )
    with pytest.raises(BudgetTooSmall, match="budget"):
        run_together(METHODS[method], [question], engine, Options(budget=budget))


def test_targets_that_make_no_sense_are_refused():
    gradcam, eigencam = METHODS["gradcam"], METHODS["eigencam"]
    for target, against, method, text in [
        ("nonsense", None, gradcam, "must be predicted, all"),
        ("CNV", "nonsense", gradcam, "against must be"),
        ("CNV", "CNV", gradcam, "with itself"),
        ("CNV", "DME", eigencam, "nothing to contrast"),
    ]:
        with pytest.raises(UnknownTarget, match=text):
            check_target(target, against, method, MANIFEST)
    with pytest.raises(UnknownTarget, match="the predicted class is the one"):
        targets("predicted", "CNV", "CNV", MANIFEST)
    assert [t.name for t in targets("all", "DME", "CNV", MANIFEST)] == ["CNV", "DRUSEN", "NORMAL"]


def test_a_method_that_the_bundle_lacks_is_refused_by_name():
    kept = tuple(e for e in MANIFEST.explanations if e.method != "shap")
    with pytest.raises(UnknownMethod, match="it offers gradcam"):
        find_method("shap", MANIFEST.model_copy(update={"explanations": kept}))


@pytest.mark.parametrize("baseline", ["blur", "mean", "black"])
def test_a_baseline_keeps_the_field_of_view(baseline):
    image = np.zeros((64, 64), np.uint8)
    image[16:48, 16:48] = np.random.default_rng(0).integers(60, 255, (32, 32))
    view, hidden = field_of_view(image), baseline_image(image, baseline)
    assert view[16:48, 16:48].all()
    assert view.sum() == 32 * 32
    assert (hidden[~view] == 0).all()
    assert hidden[view].std() < 0.3 * image[view].std()


def test_players_cover_the_field_of_view_and_only_it():
    image = IMAGES[0]
    labels = superpixels(image, 24)
    assert np.array_equal(labels >= 0, field_of_view(image))
    assert set(np.unique(labels[labels >= 0])) == set(range(labels.max() + 1))
    assert 12 <= labels.max() + 1 <= 36
    shown = np.zeros((2, labels.max() + 1), np.bool_)
    shown[1] = True
    hidden = baseline_image(image, "mean")
    nothing, everything = composed(image, hidden, labels, shown)
    assert np.array_equal(everything, image)
    assert np.array_equal(nothing, hidden)
    values = np.arange(labels.max() + 1, dtype=np.float64)
    assert spread(values, labels).sum() == pytest.approx(values.sum(), rel=1e-5)


def test_a_black_image_is_explained_too(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("gradcam", "shap", "occlusion", "eigencam", "recipro-cam"):
            ((found,),) = explain(engine, method, np.zeros((1, 224, 224), np.uint8))
            assert np.isfinite(found.values).all()
