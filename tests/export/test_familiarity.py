from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from export.assess import Others, Own, Shares, choose_limits, fit_gate
from export.familiarity import Familiarity, fit_familiarity, scores_of
from export.onnx_file import trace

WIDTH = 40


def summaries(random: np.random.Generator, count: int, shift: float = 0.0) -> np.ndarray:
    """Images that vary in five directions, and a little in all; foreign ones lie apart in the last features."""
    mixing = np.random.default_rng(0).normal(size=(5, WIDTH))
    rows = random.normal(size=(count, 5)) @ mixing + 0.1 * random.normal(size=(count, WIDTH)) + 3
    rows[:, -4:] += shift
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Familiarity:
    random = np.random.default_rng(1)
    own = summaries(random, 400)
    turned = summaries(random, 200)
    turned[:, 20:24] -= 2
    return fit_familiarity(own, summaries(random, 200, 1.5), turned, own[:200], own[200:] + np.float32(0.4))


def test_typical_images_score_0_and_the_farthest_twentieth_1(fitted):
    random = np.random.default_rng(1)
    scores = scores_of(fitted, summaries(random, 400))
    assert np.median(scores[:, :2], axis=0) == pytest.approx(0, abs=1e-4)
    assert np.quantile(scores[:, :2], 0.95, axis=0) == pytest.approx(1, abs=1e-3)
    typed = scores_of(fitted, summaries(np.random.default_rng(1), 400)[:200])[:, 3]
    assert np.median(typed) == pytest.approx(0, abs=1e-4)


def test_each_score_finds_what_it_is_for(fitted):
    random = np.random.default_rng(2)
    own, foreign = summaries(random, 300), summaries(random, 300, 1.5)
    elsewhere = summaries(random, 300)
    elsewhere[:, :8] -= 2  # a kind that the fit has not seen, on the other side
    at = np.quantile(scores_of(fitted, own), 0.95, axis=0)
    found, new = (scores_of(fitted, images) >= at for images in (foreign, elsewhere))
    assert found[:, 1].mean() > 0.95
    assert new[:, 0].mean() > 0.95
    assert (scores_of(fitted, own + np.float32(0.4))[:, 3] >= at[3]).mean() > 0.5
    turned = own.copy()
    turned[:, 20:24] -= 2
    assert (scores_of(fitted, turned)[:, 2] >= at[2]).mean() > 0.9


def test_onnx_computes_the_same_and_half_precision_stores_it_exactly(fitted):
    images = summaries(np.random.default_rng(3), 7, 0.5)
    model = trace(fitted, {"summary": torch.zeros(2, WIDTH)}, ["gate"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["gate"], {"summary": images})
    np.testing.assert_allclose(found, scores_of(fitted, images), rtol=1e-4, atol=1e-4)
    assert found.shape == (7, 4) and found.dtype == np.float32
    for name, values in fitted.state_dict().items():
        if values.ndim > 1:
            assert torch.equal(values, values.half().float()), name
    assert {node.op_type for node in model.graph.node} <= {
        *(
            "Sub",
            "Mul",
            "MatMul",
            "ReduceSum",
            "ReduceMean",
            "Add",
            "Sqrt",
            "Concat",
            "Cast",
            "Transpose",
            "Pow",
            "Gemm",
        )
    }


def test_images_far_beyond_all_others_have_finite_scores(fitted):
    scores = scores_of(fitted, np.full((1, WIDTH), 1e6, np.float32))
    assert np.isfinite(scores).all() and scores[0, 0] > 1e3


def test_what_cannot_be_fitted_is_refused():
    random = np.random.default_rng(4)
    own, none = summaries(random, 40), np.zeros((0, WIDTH), np.float32)
    with pytest.raises(ValueError, match="40 own and 0 foreign"):
        fit_familiarity(own, none)
    with pytest.raises(ValueError, match="a type score needs both"):
        fit_familiarity(own, own, typed=own)


def test_limits_share_the_images_that_may_be_lost():
    random = np.random.default_rng(5)
    scores = random.normal(size=(4000, 2)).astype(np.float32)
    sources = np.repeat(["large", "small"], [3800, 200])
    limits, lost = choose_limits(scores, sources, 0.05, 2.0)
    reaching = (scores >= limits).any(axis=1)
    by_source = [reaching[sources == name].mean() for name in ("large", "small")]
    assert np.mean(by_source) == pytest.approx(lost) and 0.045 < lost <= 0.05
    first, second = (scores >= limits).mean(axis=0)
    assert first == pytest.approx(second, abs=0.01)  # neither score takes it all


def test_no_source_is_sacrificed_to_the_others():
    random = np.random.default_rng(6)
    scores = random.normal(size=(1000, 1)).astype(np.float32)
    scores[900:] += 4
    sources = np.repeat(["a", "b", "c", "odd"], [300, 300, 300, 100])
    limits, lost = choose_limits(scores, sources, 0.05, 2.0)
    assert (scores[900:] >= limits).mean() == pytest.approx(0.1)
    assert (choose_limits(scores, sources, 0.05, 4.0)[0] < limits).all()
    assert lost < 0.05


def test_ties_are_lost_together_or_not_at_all():
    scores = np.array([[0.0]] * 90 + [[1.0]] * 10, np.float32)
    sources = np.full(100, "one")
    kept, lost = choose_limits(scores, sources, 0.05, 2.0)
    assert lost == 0 and kept[0] > 1
    limits, lost = choose_limits(scores, sources, 0.1, 2.0)
    assert lost == pytest.approx(0.1) and 0 < limits[0] < 1


def own_images(seed: int, count: int) -> Own:
    random = np.random.default_rng(seed)
    values = summaries(random, count)
    typed = np.arange(count) % 2 == 0
    values[~typed, 10:14] += 1
    return Own(values, np.array(["one", "two"])[np.arange(count) % 3 // 2], np.arange(count).astype(str), typed)


def test_a_gate_loses_few_own_images_and_finds_kinds_that_it_was_not_fitted_on():
    random = np.random.default_rng(7)

    def others(count: int) -> Others:
        up, down = summaries(random, count, 1.5), summaries(random, count, -1.5)
        turned = summaries(random, count)
        turned[:, 20:24] -= 3
        return Others(np.concatenate([up, down, turned]), np.repeat(["up", "down", "upside_down"], count))

    familiarity, gate = fit_gate(
        own_images(8, 600),
        own_images(9, 600),
        others(150),
        fitted_on="drawn numbers",
        type_reason="not after contrast",
        test=own_images(10, 600),
        foreign_test=others(100),
        shares=Shares(doubtful=0.05, refused=0.01),
        resamples=50,
    )
    assert [score.name for score in gate.scores] == ["distance", "foreign", "turned"]
    assert all(score.doubtful <= score.refused for score in gate.scores)
    assert familiarity(torch.zeros(1, WIDTH)).shape == (1, 4)
    found = {name: value.value for name, value in gate.metrics.items()}
    assert set(found) == {
        *("own", "own_refused", "own/one", "own/two", "foreign/up", "foreign/down", "unfitted/up", "unfitted/down"),
        *("foreign/upside_down", "unfitted/upside_down"),
        *("not_assessed/judged", "not_assessed/not_judged"),
    }
    assert 0.01 < found["own"] < 0.09 and found["own_refused"] < found["own"]
    assert min(found["foreign/up"], found["foreign/down"], found["unfitted/up"], found["unfitted/down"]) > 0.9
    assert found["foreign/upside_down"] > 0.9
    assert found["not_assessed/judged"] < 0.12 and found["not_assessed/not_judged"] > 0.9


def test_a_type_score_without_a_reason_is_refused():
    own = own_images(8, 100)
    with pytest.raises(ValueError, match="no reason to tell"):
        fit_gate(own, own, Others(own.summaries, own.sources), fitted_on="x")
