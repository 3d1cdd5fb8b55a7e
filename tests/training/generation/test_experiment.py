from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training.generation.experiment as trial
from service.types import PreprocessingSpec
from training.checkpoint import save_checkpoint
from training.config import DataConfig
from training.datasets.class_folders import class_folders
from training.datasets.duplicates import near_pairs, perceptual_hashes
from training.datasets.split import make_split
from training.generation.config import ClassifierConfig, ExperimentConfig, GeneratorConfig
from training.generation.experiment import experiment
from training.generation.networks import Generator
from training.generation.report import Experiment, load_experiment, save_experiment, verdict
from training.loop import make_fabric

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def write_data(root: Path) -> None:
    """Two classes, 60 noisy images each, in blocks of five."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("left", "right")):
        (root / name).mkdir(parents=True)
        for index in range(60):
            pixels = random.integers(0, 120, (32, 32), np.uint8)
            pixels[:, 16 * number : 16 * number + 16] += 90
            Image.fromarray(pixels).save(root / name / f"{index}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Data, a split, and the checkpoint of an untrained generator."""
    tmp_path = tmp_path_factory.mktemp("experiment")
    write_data(tmp_path / "data")
    records = class_folders(tmp_path / "data", block=5)
    split = make_split(records, near_pairs(perceptual_hashes(records)), seed=0, test_share=0.3, guard=0)
    split.save(tmp_path / "split.json")
    config = GeneratorConfig(
        classes=("left", "right"),
        data=DataConfig(adapter="class_folders", options={"block": 5}, split=tmp_path / "split.json"),
        preprocessing=PreprocessingSpec(field_of_view="frame", size=32),
        size=16,
        width=4,
        latent=4,
        epochs=9,
        epoch_images=8,
        experiment=ExperimentConfig(shares=(1.5,), classifier=ClassifierConfig(steps=3, batch=16)),
    )
    generator = Generator(16, 2, 4, 4)
    content = {"config": config.model_dump_json(), "averaged": generator.state_dict(), "epoch": 4}
    save_checkpoint(tmp_path / "last.pt", content)
    return tmp_path


def run(root: Path) -> Experiment:
    return experiment(
        root / "last.pt", root / "data", root / "out", root / "cache", fabric=make_fabric("1"), resamples=50
    )


@pytest.fixture(scope="module")
def report(root) -> Experiment:
    return run(root)


def test_every_arm_is_run_by_every_seed_and_compared_with_its_control(report, root, tmp_path):
    names = [f"{kind}+{share}" for kind in ("plain", "classical") for share in ("0%", "150%")]
    assert [arm.name for arm in report.arms] == names
    assert all(len(arm.accuracies) == 3 for arm in report.arms)
    assert report.generator_epochs == 5
    for arm, control in ((report.arms[1], report.arms[0]), (report.arms[3], report.arms[2])):
        assert arm.difference.value == pytest.approx(np.mean(arm.accuracies) - np.mean(control.accuracies))
        assert control.difference is None
    gain = np.mean(report.arms[2].accuracies) - np.mean(report.arms[0].accuracies)
    assert report.classical_gain.value == pytest.approx(gain)
    assert sum(report.groups_by_class.values()) == report.groups
    assert 0 <= report.quality.recognised["all"] <= 1

    save_experiment(report, tmp_path / "report")
    assert load_experiment(tmp_path / "report") == report
    assert "150%" in (tmp_path / "report" / "report.md").read_text()
    assert str(root) not in json.dumps(report.model_dump(mode="json"))


def test_what_was_trained_is_not_trained_again(report, root, monkeypatch):
    (broken,) = root.glob("out/runs/*-classical+150%-2.json")
    assert not broken.name.startswith("real")
    broken.unlink()
    trained: list[str] = []
    real = trial.train_classifier

    def counted(*arguments, **named):
        trained.append(named["description"])
        return real(*arguments, **named)

    monkeypatch.setattr(trial, "train_classifier", counted)
    again = run(root)
    assert trained == ["classical+150%, seed 2", "judge"]
    assert [arm.accuracies for arm in again.arms] == [arm.accuracies for arm in report.arms]


def test_the_verdict_follows_the_intervals(report):
    def with_gain(low: float, high: float):
        arms = [
            arm.model_copy(
                update={"difference": arm.difference.model_copy(update={"value": low, "low": low, "high": high})}
            )
            if arm.difference
            else arm
            for arm in report.arms
        ]
        return verdict(report.model_copy(update={"arms": tuple(arms)}))

    assert with_gain(-0.1, 0.1).startswith("In no arm do generated images raise accuracy beyond chance. The")
    assert with_gain(0.01, 0.1).startswith(
        "Better with generated images, beyond chance, in: plain+150%, classical+150%"
    )
    assert "Worse beyond chance in: plain+150%" in with_gain(-0.2, -0.1)
