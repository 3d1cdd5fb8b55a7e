"""Many images explained a few at a time."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from bright import SIDE

import service.composing
import service.explainers.base
from service.composing import _TOGETHER, _explained, kind_warnings
from service.explainers.base import Method, Options, Predict, Question, run_together
from service.explainers.partition_shap import METHOD as SHAP
from service.images.reading import read_frames
from service.manifest import Kind
from service.pipeline import Pipeline
from service.settings import Settings
from service.types import Target
from tests.dicom_writers import classic_mr, saved

IMAGES = 40


@pytest.fixture
def view(write_bundle):
    pipeline = Pipeline(Settings(models=write_bundle("bright").parent, threads=1, device="cpu"))
    return pipeline.view(pipeline.registry.model("bright"), None, threading.Event())


@pytest.fixture
def questions(view):
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8)
    outputs = view.run(images[..., np.newaxis])
    return [Question(image, outputs.row(row), (Target("bright", 0),)) for row, image in enumerate(images)]


def test_each_image_is_explained_as_it_is_alone(view, questions):
    shares: list[float] = []
    options = Options(budget=100, seed=3)
    found = _explained(SHAP, questions, view, options, 16, shares.append)
    assert len(found) == IMAGES
    assert all(before <= after for before, after in pairwise(shares))
    assert 0 < shares[0] < shares[-1] <= 1
    for row in (0, 17, IMAGES - 1):
        ((alone,),) = run_together(SHAP, [questions[row]], view, options)
        np.testing.assert_allclose(found[row][0].values, alone.values, atol=1e-5)


@pytest.mark.parametrize("deadline", [None, 1500])
def test_few_images_hold_masks_at_once_and_the_last_have_their_share_of_the_time(
    view, questions, deadline, monkeypatch
):
    at_once, most, rounds, clock = 0, 0, [], 0.0
    for module in (service.composing, service.explainers.base):
        monkeypatch.setattr(module, "monotonic", lambda: clock)

    def explain(question, terms):
        nonlocal at_once, most, clock
        at_once += 1
        most = max(most, at_once)
        count = 0
        while count < terms.budget and not terms.expired():
            yield Predict(question.image[None])
            clock += 0.001
            count += 1
        rounds.append(count)
        at_once -= 1
        return []

    method = Method("counted", exact=False, meaning="", source="", explain=explain)
    options = Options(budget=3 if deadline is None else 100_000, deadline_ms=deadline)
    assert len(_explained(method, questions, view, options, 16, lambda share: None)) == IMAGES
    assert most == _TOGETHER
    each = 3 if deadline is None else deadline // IMAGES  # questions of a millisecond
    assert each - 2 <= min(rounds) <= max(rounds) <= each + 2


KIND = Kind(modalities=("MR",), body_part=None, description="brain")


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "T1 MAP"]}, "Image Type (0008,0008) says a map of computed values"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "Image Type (0008,0008) says a mosaic of slices"),
        (
            {"ComplexImageComponent": "PHASE"},
            "Complex Image Component (0008,9208) says a phase, real or imaginary image",
        ),
    ],
)
def test_a_header_that_says_that_the_image_is_no_picture_of_a_slice_is_a_warning(elements, reason):
    (ds,) = classic_mr([np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)], **elements)
    (frame,) = read_frames(saved(ds), "a.dcm")
    assert kind_warnings(frame, KIND) == [f"not of this model's kind: {reason}; do not rely on the prediction"]


def test_a_picture_of_a_slice_has_no_warning():
    (ds,) = classic_mr([np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)])
    (frame,) = read_frames(saved(ds), "a.dcm")
    assert kind_warnings(frame, KIND) == []
