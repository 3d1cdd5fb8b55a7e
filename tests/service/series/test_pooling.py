from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.assessment import Assessment
from service.bundle import MANIFEST
from service.manifest import Bounds, Conformal, Manifest, SeriesPooling
from service.prediction import predict
from service.series.pooling import LIMITS_OF_IMAGES, NOT_CALIBRATED, pool, strongest
from service.settings import SHIPPED_MODELS

logits = st.integers(1, 30).flatmap(lambda n: arrays(np.float32, (n, 4), elements=st.floats(-40, 40, width=32)))


def manifest(**pooling: object) -> Manifest:
    """The brain model's: three kinds of tumour, then none; threshold 0.22."""
    read = Manifest.model_validate(json.loads((SHIPPED_MODELS / "brain-mri-resnet50" / MANIFEST).read_bytes()))
    fitted = SeriesPooling(fitted_on="blocks", groups=20, **pooling) if pooling else None
    return read.model_copy(update={"series_pooling": fitted})


PLAIN, TWO = manifest(), manifest(strongest=2, scale=1.5, offset=0.5)
HEALTHY, GLIOMA, WEAK = [-3, -3, -3, 4], [5, -2, -2, -2], [0, -3, -3, 0.5]


def rows(*kinds: list[float]) -> np.ndarray:
    return np.array(kinds, np.float32)


def test_one_slice_is_its_series_where_nothing_was_fitted():
    one = rows(GLIOMA)
    pooled, alone = pool(one, PLAIN), predict(one[0], PLAIN)
    assert pooled.probabilities == pytest.approx(alone.probabilities)
    assert pooled.findings[0].probability == pytest.approx(alone.findings[0].probability)
    assert pooled.notes == (NOT_CALIBRATED,)


def test_a_finding_in_one_slice_of_many_is_found_and_named():
    pooled = pool(rows(*[HEALTHY] * 11, GLIOMA, *[HEALTHY] * 12), PLAIN)
    (tumour,) = pooled.findings
    assert pooled.label == "glioma"
    assert tumour.present
    assert tumour.carriers == pooled.strongest == (11,)


def test_a_series_without_a_finding_has_no_carriers():
    pooled = pool(rows(*[HEALTHY] * 5), PLAIN)
    assert pooled.label == "no_tumor"
    assert not pooled.findings[0].present
    assert pooled.findings[0].carriers == ()


def test_carriers_come_strongest_first_and_only_those_that_reach_the_threshold():
    pooled = pool(rows(WEAK, HEALTHY, GLIOMA, HEALTHY), TWO)
    assert pooled.findings[0].carriers == (2, 0)


def test_where_no_slice_reaches_the_threshold_alone_the_pooled_ones_carry():
    below = rows([-1.6, -9, -9, 0], HEALTHY, [-1.5, -9, -9, 0])
    lifted = pool(below, manifest(strongest=2, scale=1, offset=3))
    assert max(predict(row, PLAIN).findings[0].probability for row in below) < 0.22
    assert lifted.findings[0].present
    assert lifted.findings[0].carriers == (2, 0)


def test_the_formula():
    pooled = pool(rows(HEALTHY, GLIOMA, WEAK), TWO)
    mean = (np.array(GLIOMA) + np.array(WEAK)) / 2 / TWO.temperature
    raised = np.exp(1.5 * mean + np.array([0.5, 0.5, 0.5, 0]))
    np.testing.assert_allclose(list(pooled.probabilities.values()), raised / raised.sum(), rtol=1e-6)
    assert pooled.strongest == (1, 2)
    assert pooled.notes == ()


@example(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], np.float32), 2, Random(0))
@example(np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], np.float32), 2, Random(0))
@given(logits, st.integers(1, 6), st.randoms())
def test_the_order_of_slices_changes_nothing_but_their_numbers(values, count, random):
    model = manifest(strongest=count, scale=1.2, offset=-0.3)
    order = list(range(len(values)))
    random.shuffle(order)
    first, second = pool(values, model), pool(values[order], model)
    assert sum(first.probabilities.values()) == pytest.approx(1)
    for one, other in zip(first.findings, second.findings, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    evidence = [values[i] for i in first.strongest]
    assert len(evidence) == min(count, len(values)) == len(second.strongest)


@given(logits)
def test_one_more_slice_never_hides_a_finding_where_nothing_was_fitted(values):
    before = pool(values[:-1], PLAIN) if len(values) > 1 else None
    after = pool(values, PLAIN)
    if before is not None:
        assert after.findings[0].probability >= before.findings[0].probability - 1e-9


def test_without_a_healthy_label_every_slice_counts():
    assert strongest(np.zeros((5, 3)), [0, 1, 2], 2).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(0, 4), (3, 3), (4,)])
def test_what_is_not_a_series_of_logits_is_refused(shape):
    with pytest.raises(ValueError, match="one row of logits"):
        pool(np.zeros(shape, np.float32), PLAIN)


NOT = Assessment("no", ("a neck",), type_assessed=False)


def test_slices_that_are_not_assessable_are_not_pooled_and_carry_nothing():
    slices = rows(HEALTHY, GLIOMA, HEALTHY)
    pooled = pool(slices, PLAIN, [Assessment(), NOT, Assessment("doubtful", ("blurred",))])
    assert pooled.label == "no_tumor"
    assert (pooled.findings[0].decision, pooled.findings[0].carriers) == ("absent", ())
    assert pooled.probabilities == pytest.approx(pool(slices[[0, 2]], PLAIN).probabilities)
    assert "1 of 3 slices are not assessable and do not count: a neck" in pooled.notes


def test_where_no_slice_is_assessable_nothing_is_decided():
    pooled = pool(rows(GLIOMA, GLIOMA), PLAIN, [NOT, NOT])
    assert (pooled.findings[0].decision, pooled.findings[0].carriers) == ("not assessed", ())
    assert not pooled.findings[0].present
    assert pooled.assessment == NOT
    assert pooled.label == "glioma"  # the numbers are there, for those who want to know


def test_a_series_is_doubtful_by_the_slices_that_it_rests_on():
    doubtful = Assessment("doubtful", ("blurred",), type_assessed=False)
    assert pool(rows(HEALTHY, GLIOMA), PLAIN, [doubtful, Assessment()]).assessment == Assessment()
    assert pool(rows(HEALTHY, GLIOMA), PLAIN, [Assessment(), doubtful]).assessment == doubtful


def test_a_series_has_one_verdict():
    between = rows([-1, -9, -9, 0])
    pooled = pool(between, PLAIN)
    assert pooled.label == "no_tumor"
    assert pooled.findings[0].probability > PLAIN.findings[0].operating_point.threshold
    assert (pooled.findings[0].decision, pooled.findings[0].carriers) == ("not decided", (0,))


IMAGE_LIMITS = Conformal(
    error_rate=0.05,
    labels=dict.fromkeys(PLAIN.class_names, 0.1),
    findings={"tumor": Bounds(absent_to=0.001, present_from=0.9999)},
    fitted_on="images",
    images=1,
    groups=1,
)


def test_conformal_limits_decide_a_series_and_say_what_they_were_fitted_on():
    pooled = pool(rows([1, -1, -1, -1]), PLAIN.model_copy(update={"conformal": IMAGE_LIMITS}))
    assert pooled.findings[0].decision == "not decided"
    assert LIMITS_OF_IMAGES.format(what="decisions") in pooled.notes
    assert pooled.prediction_set is not None
    assert "glioma" in pooled.prediction_set


def test_limits_of_series_come_before_those_of_images():
    series = SeriesPooling(
        strongest=1,
        scale=1,
        offset=0,
        error_rate=0.1,
        findings={"tumor": Bounds(absent_to=0.4, present_from=0.5)},
        fitted_on="series",
        groups=1,
    )
    pooled = pool(rows([1, -1, -1, -1]), PLAIN.model_copy(update={"conformal": IMAGE_LIMITS, "series_pooling": series}))
    assert pooled.findings[0].decision == "present"
    assert pooled.notes == (LIMITS_OF_IMAGES.format(what="the prediction set"),)
