from __future__ import annotations

import numpy as np
import pytest

from tests.soak.verdict import flatness

SECONDS = np.arange(0, 600, 5.0)
NOISE = np.random.default_rng(0).normal(0, 2, len(SECONDS))


def test_a_leak_is_seen_through_noise_and_a_filling_pool_is_none():
    filling = 300 * (1 - np.exp(-SECONDS / 40))
    leak = flatness(SECONDS, filling + 0.1 * SECONDS + NOISE, 16)
    assert leak.growth == pytest.approx(30, abs=4)
    assert not leak.flat
    assert flatness(SECONDS, filling + NOISE, 16).flat


def test_single_samples_do_not_decide():
    values = 300 + NOISE
    values[-2:] += 500
    assert flatness(SECONDS, values, 16).flat


def test_a_run_that_shows_nothing_is_not_flat():
    loud = np.random.default_rng(1).normal(0, 200, len(SECONDS))
    assert not flatness(SECONDS, loud, 16).flat
    with pytest.raises(ValueError, match="too few"):
        flatness(SECONDS[:12], SECONDS[:12], 16)
