"""Sessions of fixed sizes, here on the CPU; on a GPU: tests/gpu."""

from __future__ import annotations

import numpy as np
import pytest

from export.golden import phantoms
from service.bundle import read_bundle
from service.cuda import FixedSizes
from service.engine import Engine, Stop, Stopped, open_engine
from service.settings import SHIPPED_MODELS

BUNDLE = read_bundle(SHIPPED_MODELS / "retinal-oct-oculusnet")
IMAGES = np.concatenate([phantoms(224, seed) for seed in range(5)])


class Watched:
    """A session that keeps how large its batches were."""

    def __init__(self, session):
        self._session, self.batches = session, []

    def run(self, outputs, inputs, options=None, /):
        self.batches.append({len(value) for value in inputs.values()})
        return self._session.run(outputs, inputs, options)


@pytest.fixture(scope="module")
def plain():
    return open_engine(BUNDLE, device="cpu")


@pytest.fixture
def fixed(plain):
    sessions = {size: Watched(plain.session) for size in (1, 4, 8)}
    gradients = {size: Watched(plain.gradients) for size in (1, 4)}
    return Engine(FixedSizes(sessions), "cpu", FixedSizes(gradients))


def batches(session):
    return [size for size, each in session.sessions.items() for batch in each.batches if batch == {size}]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [4]), (4, [4]), (5, [8]), (8, [8]), (19, [4, 8, 8])])
def test_a_batch_is_filled_up_to_the_next_size_and_one_beyond_the_largest_is_done_in_pieces(plain, fixed, count, sizes):
    names = BUNDLE.manifest.graph.outputs
    found, expected = fixed.run(IMAGES[:count], names), plain.run(IMAGES[:count], names)
    assert batches(fixed.session) == sizes
    assert found.logits.shape == expected.logits.shape
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.cam, expected.cam, atol=1e-4)
    for name in names:
        np.testing.assert_allclose(found.more[name], expected.more[name], atol=1e-3, rtol=1e-3)


def test_all_inputs_are_filled_up_together(plain, fixed):
    pixels, weights = IMAGES[:7, ..., 0].astype(np.float32), np.eye(4, dtype=np.float32)[np.arange(7) % 4]
    found, expected = fixed.gradient(pixels, weights), plain.gradient(pixels, weights)
    assert batches(fixed.gradients) == [4, 4]
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 5e-2


def test_a_batch_in_pieces_is_stopped_as_a_whole(fixed):
    stop = Stop()
    stop.ask()
    with pytest.raises(Stopped):
        fixed.run(IMAGES[:20], stop=stop)


def test_no_image_at_all_is_no_error(fixed):
    assert fixed.run(IMAGES[:0]).logits.shape == (0, 4)
