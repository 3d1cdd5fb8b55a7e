from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import training.segmentation.loop as loop
from service.types import PreprocessingSpec
from training.checkpoint import CheckpointError, load_checkpoint
from training.config import DataConfig, StageConfig
from training.datasets.prepared import Prepared
from training.loop import make_fabric
from training.segmentation.config import SegmentationConfig
from training.segmentation.loop import load_unet, predict_masks, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def small_config(tmp_path, **changes) -> SegmentationConfig:
    values = {
        "channels": (8, 16, 32),
        "classes": ("spot", "plain"),
        "healthy": ("plain",),
        "data": DataConfig(adapter="class_folders", split=tmp_path / "split.json"),
        "preprocessing": PreprocessingSpec(field_of_view="frame", size=32),
        "stages": (StageConfig(size=16, epochs=1), StageConfig(size=32, epochs=2)),
        "batch": 8,
        "epoch_images": 32,
        "empty_share": 0.25,
        "ema": 0.8,
    }
    return SegmentationConfig(**(values | changes))


def spots(count: int, seed: int) -> Prepared:
    """Noise; every other image has a bright square, outlined."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 80, (count, 32, 32), np.uint8)
    masks = np.zeros_like(images)
    labels = np.arange(count) % 2
    for row in np.flatnonzero(labels == 0):
        y, x = random.integers(4, 20, 2)
        masks[row, y : y + 8, x : x + 8] = 255
    images[masks > 0] = 240
    names = tuple(f"{k}" for k in range(count))
    return Prepared(images, masks, labels == 0, labels.astype(np.int64), names, names)


class Killed(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    config = small_config(tmp_path)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = train(config, spots(32, 0), spots(8, 1), tmp_path / "whole", fabric=make_fabric("1"))
    real, calls = loop.augment, 0

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls == 6:  # in the middle of the second epoch
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "augment", dies)
        with pytest.raises(Killed):
            train(config, spots(32, 0), spots(8, 1), tmp_path / "broken", fabric=make_fabric("1"))
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["epoch"] == 0
    resumed = train(config, spots(32, 0), spots(8, 1), tmp_path / "broken", fabric=make_fabric("1"))
    one, other = load_checkpoint(whole), load_checkpoint(resumed)
    assert one["epoch"] == other["epoch"] == 2
    for name, tensor in one["averaged"].items():
        assert torch.equal(tensor, other["averaged"][name]), name
    assert (tmp_path / "broken" / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()


def test_another_configuration_does_not_go_on_with_a_run(tmp_path):
    config = small_config(tmp_path, stages=(StageConfig(size=16, epochs=1),))
    last = train(config, spots(16, 0), spots(8, 1), tmp_path, fabric=make_fabric("1"))
    before = last.read_bytes()
    other = config.model_copy(update={"seed": config.seed + 1})
    with pytest.raises(CheckpointError, match="another configuration"):
        train(other, spots(16, 0), spots(8, 1), tmp_path, fabric=make_fabric("1"))
    assert last.read_bytes() == before


def test_it_learns_to_outline(tmp_path):
    stages = (StageConfig(size=32, epochs=10),)
    config = small_config(tmp_path, stages=stages, learning_rate=1e-2, epoch_images=64)
    last = train(config, spots(64, 0), spots(8, 1), tmp_path, fabric=make_fabric("1"))
    network, loaded = load_unet(last)
    assert loaded == config
    unseen = spots(8, 2)
    found = predict_masks(network, unseen.images, make_fabric("1"), 32) > 0.5
    truth = unseen.masks > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7


def test_every_epoch_has_its_share_of_empty_images(tmp_path):
    data = spots(32, 0)
    order = loop._order(small_config(tmp_path), data, 3)
    assert len(order) == 32
    assert (data.labels[order] == 1).sum() == 8


@pytest.mark.parametrize("change", [{"preprocessing": {"field_of_view": "frame", "size": 50}}, {"empty_share": 1.0}])
def test_a_configuration_that_cannot_work_is_refused(tmp_path, change):
    with pytest.raises(ValidationError):
        small_config(tmp_path, **change)
