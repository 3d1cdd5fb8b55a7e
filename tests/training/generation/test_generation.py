from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import training.generation.loop as loop
from service.types import PreprocessingSpec
from training.augment import Augmentation
from training.checkpoint import CheckpointError, load_checkpoint
from training.config import DataConfig
from training.datasets.prepared import Prepared
from training.generation.classifier import Labelled, features, predict, train_classifier
from training.generation.config import ClassifierConfig, ExperimentConfig, GeneratorConfig
from training.generation.loop import generate, load_generator, shrunk, train
from training.generation.networks import Discriminator, Generator
from training.generation.quality import frechet_distance, memorised_share, nearest, spread
from training.loop import make_fabric

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def small_config(tmp_path, **changes) -> GeneratorConfig:
    values = {
        "classes": ("left", "right"),
        "data": DataConfig(adapter="class_folders", split=tmp_path / "split.json"),
        "preprocessing": PreprocessingSpec(field_of_view="frame", size=32),
        "size": 16,
        "width": 8,
        "latent": 8,
        "batch": 16,
        "epochs": 2,
        "epoch_images": 64,
        "experiment": ExperimentConfig(classifier=ClassifierConfig(steps=4)),
    }
    return GeneratorConfig(**(values | changes))


def sides(count: int, seed: int, side: int = 32) -> Prepared:
    """Bright on the left or on the right."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (count, side, side), np.uint8)
    labels = np.arange(count) % 2
    images[labels == 0, :, : side // 2] += 150
    images[labels == 1, :, side // 2 :] += 150
    names = tuple(f"{k}" for k in range(count))
    return Prepared(images, np.zeros_like(images), np.zeros(count, np.bool_), labels.astype(np.int64), names, names)


class Killed(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    config = small_config(tmp_path)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train(config, sides(64, 0), tmp_path / "whole", fabric=make_fabric("1"))
    real, calls = loop._altered, 0

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls == 17:  # in the middle of the second epoch
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_altered", dies)
        with pytest.raises(Killed):
            train(config, sides(64, 0), tmp_path / "broken", fabric=make_fabric("1"))
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["epoch"] == 0
    resumed = train(config, sides(64, 0), tmp_path / "broken", fabric=make_fabric("1"))
    one, other = load_checkpoint(whole), load_checkpoint(resumed)
    assert one["epoch"] == other["epoch"] == 1
    for name, tensor in one["averaged"].items():
        assert torch.equal(tensor, other["averaged"][name]), name
    generator, loaded = load_generator(whole)
    assert loaded == config
    labels = np.array([0, 1, 0])
    made = generate(generator, labels, 5)
    assert made.shape == (3, 16, 16)
    assert (made == generate(generator, labels, 5)).all()
    assert (made != generate(generator, labels, 6)).any()


def test_another_configuration_does_not_go_on_with_a_run(tmp_path):
    config = small_config(tmp_path, epochs=1, epoch_images=16)
    last = train(config, sides(16, 0), tmp_path, fabric=make_fabric("1"))
    before = last.read_bytes()
    other = config.model_copy(update={"seed": config.seed + 1})
    with pytest.raises(CheckpointError, match="another configuration"):
        train(other, sides(16, 0), tmp_path, fabric=make_fabric("1"))
    assert last.read_bytes() == before


def test_the_generator_learns_what_its_classes_look_like(tmp_path):
    config = small_config(tmp_path, epochs=15, generator_rate=2e-3, discriminator_rate=4e-3, ema=0.9)
    data = sides(64, 0)
    images = np.random.default_rng(0).integers(0, 60, data.images.shape, np.uint8)
    images[data.labels == 1] += 150
    generator, _ = load_generator(train(config, replace(data, images=images), tmp_path, fabric=make_fabric("1")))
    labels = np.arange(40) % 2
    made = generate(generator, labels, 0).astype(float)
    assert made[labels == 1].mean() > made[labels == 0].mean() + 50


def test_a_side_that_is_no_power_of_two_is_refused():
    for make in (lambda: Generator(24, 2, 4, 4), lambda: Discriminator(4, 2, 4)):
        with pytest.raises(ValueError, match="none of 8, 16"):
            make()


def test_the_classifier_learns_and_its_features_are_pooled():
    data = sides(64, 0)
    labelled, unseen = Labelled(data.images, data.labels), sides(32, 1)
    network = train_classifier(
        labelled,
        2,
        ClassifierConfig(steps=30, batch=16),
        0,
        augmentation=Augmentation(flip=0),
        fabric=make_fabric("1"),
        description="test",
    )
    assert (predict(network, unseen.images, make_fabric("1")) == unseen.labels).mean() > 0.9
    found = features(network, unseen.images, make_fabric("1"))
    assert found.shape == (32, 256)
    assert (predict(network, unseen.images, make_fabric("1")) == unseen.labels).mean() > 0.9  # the head is back


def test_shrinking_averages():
    images = np.zeros((1, 4, 4), np.uint8)
    images[0, :2, :2] = 200
    assert shrunk(images, 2).tolist() == [[[200, 0], [0, 0]]]


def test_copies_are_found_and_new_images_are_not():
    random = np.random.default_rng(0)
    known, unseen, new = (random.integers(0, 256, (n, 8, 8), np.uint8) for n in (60, 200, 200))
    copies = known[random.integers(0, 60, 200)][..., ::-1]  # mirrored
    base = nearest(unseen, known)
    assert nearest(copies, known).max() == pytest.approx(0, abs=1e-6)
    assert memorised_share(nearest(copies, known), base) == 1
    assert memorised_share(nearest(new, known), base) < 0.15
    one = np.full((1, 8, 8), 30, np.uint8)
    assert nearest(one + 7, one) == pytest.approx(7)
    assert spread(np.concatenate([one, one + 9])) == pytest.approx(9)


def test_the_distance_of_gaussians_is_the_closed_form():
    random = np.random.default_rng(0)
    a = random.normal(size=(40000, 3)) * [1, 2, 3]
    b = random.normal(size=(40000, 3)) * [2, 2, 1] + [0, 1, 0]
    assert frechet_distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(1 + 1 + 0 + 4, rel=0.05)
    assert frechet_distance(a.astype(np.float32), a.astype(np.float32)) == pytest.approx(0, abs=1e-6)
