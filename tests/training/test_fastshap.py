from __future__ import annotations

import numpy as np
import pytest
import torch

from training.fastshap import MaskedOutputs, draw_coalitions, efficient, train_head, unexplained
from training.models.shapley_head import ShapleyHead


def additive_game(images: int, seed: int) -> tuple[MaskedOutputs, np.ndarray]:
    """Scores that are sums over cells of a pattern that the features show: its Shapley values are that pattern."""
    random = np.random.default_rng(seed)
    features = random.random((images, 6, 7, 7), np.float32)
    worth = np.stack([features[:, 0] - features[:, 1], 2 * features[:, 2]], axis=1)
    shown = np.stack([draw_coalitions(16, random) for _ in range(images)])
    scores = np.einsum("nmp,nkp->nmk", shown, worth.reshape(images, 2, 49)).astype(np.float32)
    empty = np.zeros((images, 2), np.float32)
    return MaskedOutputs(features, shown, scores, worth.sum(axis=(2, 3)), empty), worth


def test_a_head_learns_shapley_values_that_it_was_never_shown():
    torch.manual_seed(0)
    head = ShapleyHead(6, 2, 7)
    train, validation = additive_game(256, 0)[0], additive_game(64, 1)[0]
    before = unexplained(head, validation)
    history = train_head(head, train, validation, epochs=20)
    assert min(history) < 0.05 * before
    held_out, worth = additive_game(32, 2)
    with torch.inference_mode():
        total = torch.from_numpy(held_out.whole)
        found = efficient(head(torch.from_numpy(held_out.features)), total).numpy()
    assert np.corrcoef(found.ravel(), worth.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(found.sum(axis=(2, 3)), held_out.whole, atol=1e-3)


def test_coalitions_come_in_pairs_of_opposites_of_every_size():
    shown = draw_coalitions(400, np.random.default_rng(0))
    assert shown.shape == (400, 49)
    assert np.array_equal(shown[0::2], ~shown[1::2])
    sizes = shown.sum(axis=1)
    assert sizes.min() >= 1
    assert sizes.max() <= 48
    assert (sizes == 1).sum() > (sizes == 24).sum()  # the Shapley kernel favours the extremes


def test_larger_feature_maps_are_averaged_and_odd_ones_refused():
    assert ShapleyHead(8, 3, 14)(torch.zeros(2, 8, 14, 14)).shape == (2, 3, 7, 7)
    with pytest.raises(ValueError, match="do not divide"):
        ShapleyHead(8, 3, 10)
