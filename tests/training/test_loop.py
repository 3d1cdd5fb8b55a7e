from __future__ import annotations

import csv

import numpy as np
import onnx
import pytest
import torch
from networks import ShortOculusNet, lively

from export.graph import fuse_network
from export.onnx_file import to_onnx
from service.types import PreprocessingSpec
from training.checkpoint import CheckpointError, load_checkpoint, load_network
from training.config import DataConfig, SamplingConfig, StageConfig, TrainConfig
from training.datasets.prepared import Prepared
from training.loop import make_fabric, train
from training.models import NETWORKS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def short_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "oculusnet", ShortOculusNet)  # how deep it is does not matter to the loop


def small_config(tmp_path, **changes) -> TrainConfig:
    values = {
        "network": "oculusnet",
        "classes": ("spot", "plain"),
        "healthy": ("plain",),
        "data": DataConfig(adapter="class_folders", split=tmp_path / "split.json"),
        "preprocessing": PreprocessingSpec(field_of_view="frame", size=64),
        "stages": (StageConfig(size=32, epochs=2), StageConfig(size=64, epochs=1)),
        "batch": 8,
        "validate_every": 1,
    }
    return TrainConfig(**(values | changes))


def spots(count: int, seed: int) -> Prepared:
    """Noise, with a bright square and its mask in every other image."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 80, (count, 64, 64), np.uint8)
    masks = np.zeros_like(images)
    labels = np.arange(count) % 2
    for row in np.flatnonzero(labels == 0):
        y, x = random.integers(8, 44, 2)
        masks[row, y : y + 14, x : x + 14] = 255
    images[masks > 0] = 240
    names = tuple(f"{k}" for k in range(count))
    return Prepared(images, masks, labels == 0, labels.astype(np.int64), names, names)


class Killed(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    config = small_config(tmp_path)
    fabric = make_fabric()
    whole = train(config, spots(32, 0), spots(16, 1), tmp_path / "whole", fabric=fabric)

    import training.loop as loop

    real = loop.augment
    calls = 0

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls == 7:  # in the middle of the second epoch
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "augment", dies)
        with pytest.raises(Killed):
            train(config, spots(32, 0), spots(16, 1), tmp_path / "broken", fabric=fabric)
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["epoch"] == 0
    resumed = train(config, spots(32, 0), spots(16, 1), tmp_path / "broken", fabric=fabric)

    one, other = load_checkpoint(whole), load_checkpoint(resumed)
    assert one["epoch"] == other["epoch"] == 2
    for name, tensor in one["averaged"].items():
        assert torch.equal(tensor, other["averaged"][name]), name
    lines = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert lines == (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert len(lines) == 4


def test_another_configuration_does_not_go_on_with_a_run(tmp_path):
    config = small_config(tmp_path, stages=(StageConfig(size=32, epochs=1),))
    last = train(config, spots(16, 0), spots(8, 1), tmp_path, fabric=make_fabric())
    before = last.read_bytes()
    other = config.model_copy(update={"seed": config.seed + 1})
    with pytest.raises(CheckpointError, match="another configuration"):
        train(other, spots(16, 0), spots(8, 1), tmp_path, fabric=make_fabric())
    assert last.read_bytes() == before


def test_weights_of_another_network_are_refused(tmp_path):
    config = small_config(tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="cannot start from these weights"):
        train(config, spots(16, 0), spots(8, 1), tmp_path / "run", fabric=make_fabric(), initial=tmp_path / "other.pt")


def test_frozen_layers_stay_as_the_weights_have_them_that_a_run_starts_from(tmp_path):
    config = small_config(tmp_path, stages=(StageConfig(size=32, epochs=1),))
    first = train(config, spots(16, 0), spots(8, 1), tmp_path / "first", fabric=make_fabric())
    frozen = config.model_copy(update={"frozen": ("stem",), "seed": 3})
    second = train(frozen, spots(16, 2), spots(8, 1), tmp_path / "second", fabric=make_fabric(), initial=first)
    before, after = load_checkpoint(first)["averaged"], load_checkpoint(second)["averaged"]
    stays = {name: torch.equal(before[name], after[name]) for name in before if "num_batches" not in name}
    assert all(same for name, same in stays.items() if name.startswith("stem"))
    assert not any(same for name, same in stays.items() if name.startswith(("stages", "last", "neck")))
    with pytest.raises(CheckpointError, match="give --init"):
        train(frozen, spots(16, 0), spots(8, 1), tmp_path / "third", fabric=make_fabric())


def test_losses_fall_and_the_checkpoint_holds_its_configuration(tmp_path):
    config = small_config(tmp_path, stages=(StageConfig(size=32, epochs=4),), learning_rate=3e-3)
    last = train(config, spots(32, 0), spots(8, 1), tmp_path, fabric=make_fabric())
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for loss in ("loss_finding", "loss_cells"):
        assert float(rows[-1][loss]) < 0.9 * float(rows[0][loss])
    network, loaded = load_network(last)
    assert loaded == config
    assert not network.training


def test_a_run_starts_from_a_bundle(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    fused = fuse_network(lively(ShortOculusNet(2)).eval(), 64)
    onnx.save(to_onnx(fused.module, 64, fused.module.names), bundle / "model.onnx")
    config = small_config(tmp_path, stages=(StageConfig(size=64, epochs=1),), learning_rate=1e-9)
    last = train(config, spots(16, 0), spots(8, 1), tmp_path / "run", fabric=make_fabric(), initial=bundle)
    kept = load_network(last)[0].neck.last.bias
    torch.testing.assert_close(kept, dict(fused.plain.network.named_parameters())["neck.last.bias"], atol=1e-3, rtol=0)


def test_lesions_are_painted_out_where_the_configuration_says(tmp_path):
    sampling = SamplingConfig(painted=1.0, touched=1.0, stripped=(1.0, 1.0))
    changed: dict[str, float] = {}
    for name, made in (("painted", sampling), ("plain", SamplingConfig())):
        config = small_config(tmp_path, sampling=made, stages=(StageConfig(size=64, epochs=1),))
        train(config, spots(32, 0), spots(8, 1), tmp_path / name, fabric=make_fabric())
        with (tmp_path / name / "log.csv").open() as file:
            changed[name] = float(next(csv.DictReader(file))["loss_finding"])
    assert changed["painted"] != pytest.approx(changed["plain"], rel=1e-6)
