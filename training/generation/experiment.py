"""The honest experiment: are classifiers better on real test images for having seen generated ones?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from training.augment import Augmentation
from training.bootstrap import Estimate, Resamples, draw
from training.datasets import read_dataset
from training.datasets.prepared import prepare_records
from training.datasets.split import Part, Split
from training.files import write_atomically
from training.generation.classifier import Labelled, features, predict, train_classifier
from training.generation.config import GeneratorConfig
from training.generation.loop import generate, load_generator, shrunk
from training.generation.networks import Generator
from training.generation.quality import frechet_distance, memorised_share, nearest, spread
from training.generation.report import Arm, Experiment, Quality
from training.measure import inseparable_groups
from training.provenance import describe_machine, file_digest

Predictions = NDArray[np.int64]
CLASSICAL = Augmentation(rotation=15.0, shift=0.06, scale=(0.85, 1.2), noise=4.0, coarsen=0.0)
_QUALITY_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class _Parts:
    """The real images of each part at the generator's size, and the groups of the test images `[N]`."""

    training: Labelled
    validation: Labelled
    test: Labelled
    groups: NDArray[np.int64]
    split_digest: str


def experiment(
    checkpoint: Path,
    root: Path,
    out: Path,
    cache: Path,
    *,
    fabric: Fabric,
    seeds: int = 3,
    resamples: int = 2000,
    command: str = "",
) -> Experiment:
    """Train every arm by every seed, and compare; what `out` holds of an unfinished experiment is not trained again.

    Args:
        checkpoint: `last.pt` of a generator's run.
        root: the dataset's folder.
        out: folder for the arms' predictions.
        cache: folder for prepared images.
        fabric: device and precision.
        seeds: how many runs of each arm, three or more.
        resamples: how many bootstrap resamples the intervals come from.
        command: what the report says it was made with.

    Raises:
        DatasetError: the dataset is not what the checkpoint was trained on.
        FileNotFoundError: checkpoint or split file is missing.
    """
    generator, config = load_generator(checkpoint)
    parts = _parts(config, root, cache)
    digest = file_digest(checkpoint)
    arms = [(classical, share) for classical in (False, True) for share in (0.0, *config.experiment.shares)]
    rows: dict[tuple[bool, float], list[Predictions]] = {arm: [] for arm in arms}
    with tqdm(total=len(arms) * seeds, desc="arms", unit="run") as bar:
        for seed in range(1, seeds + 1):
            made = _generated(generator, parts.training.labels, max(config.experiment.shares), seed)
            for arm, predictions in rows.items():
                origin = digest[:12] if arm[1] else "real"  # what is trained on real images alone needs no generator
                path = out / "runs" / f"{origin}-{_name(*arm)}-{seed}.json"
                predictions.append(_run(path, parts, made, config, seed, *arm, fabric=fabric))
                bar.update()
    found = {arm: np.stack(predictions) for arm, predictions in rows.items()}
    drawn = draw(parts.groups, parts.test.labels, resamples, 0)
    return Experiment(
        classes=config.classes,
        size=config.size,
        training_images=len(parts.training.labels),
        test_images=len(parts.test.labels),
        groups=drawn.groups,
        groups_by_class={
            name: len(np.unique(parts.groups[parts.test.labels == number]))
            for number, name in enumerate(config.classes)
        },
        seeds=tuple(range(1, seeds + 1)),
        classifier_steps=config.experiment.classifier.steps,
        quality=_quality(generator, config, parts, fabric),
        arms=tuple(_arm(parts, drawn, key, found) for key in arms),
        classical_gain=_difference(parts, drawn, found[True, 0.0], found[False, 0.0]),
        resamples=resamples,
        generator_epochs=config.epochs,
        checkpoint_digest=digest,
        split_digest=parts.split_digest,
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(str(fabric.device)),
    )


def _parts(config: GeneratorConfig, root: Path, cache: Path) -> _Parts:
    records = read_dataset(config.data.adapter, root, **config.data.options)
    split = Split.load(config.data.split)

    def part(name: Part) -> Labelled:
        prepared = prepare_records(split.select(records, name), config.classes, config.preprocessing, cache)
        return Labelled(shrunk(prepared.images, config.size), prepared.labels)

    groups = inseparable_groups(split.select(records, "test"))
    return _Parts(part("train"), part("validation"), part("test"), groups, split.digest())


def _run(
    path: Path,
    parts: _Parts,
    made: Labelled,
    config: GeneratorConfig,
    seed: int,
    classical: bool,
    share: float,
    *,
    fabric: Fabric,
) -> Predictions:
    """Predicted classes `[N]` of the test images by one arm and seed, trained now or read from `path`."""
    if path.exists():
        return np.array(json.loads(path.read_bytes()), np.int64)
    data = parts.training
    if share:
        data = data.joined(made.first(round(share * len(data.labels))))
    network = train_classifier(
        data,
        len(config.classes),
        config.experiment.classifier,
        seed,
        augmentation=CLASSICAL if classical else None,
        fabric=fabric,
        description=f"{_name(classical, share)}, seed {seed}",
    )
    predicted = predict(network, parts.test.images, fabric)
    write_atomically(path, json.dumps(predicted.tolist()).encode())
    return predicted


def _generated(generator: Generator, labels: Predictions, share: float, seed: int) -> Labelled:
    """`share` as many images as there are `labels`, of classes drawn from them, so that the mixture stays."""
    random = np.random.default_rng(seed)
    drawn = [random.permutation(labels) for _ in range(ceil(share))]
    wanted = np.concatenate(drawn)[: round(share * len(labels))]
    return Labelled(generate(generator, wanted, seed), wanted)


def _arm(parts: _Parts, drawn: Resamples, key: tuple[bool, float], found: dict[tuple[bool, float], Predictions]) -> Arm:
    classical, share = key
    predicted, control = found[key], found[classical, 0.0]
    correct = predicted == parts.test.labels
    accuracies = correct.mean(axis=1)
    value = drawn.ratio(correct.mean(axis=0))
    assert value is not None  # noqa: S101 - the test part is not empty
    return Arm(
        name=_name(classical, share),
        share=share,
        classical=classical,
        accuracies=tuple(accuracies.tolist()),
        balanced=tuple(float(balanced_accuracy_score(parts.test.labels, row)) for row in predicted),
        accuracy=value,
        difference=_difference(parts, drawn, predicted, control) if share else None,
        seeds_p=_seeds_p(accuracies, (control == parts.test.labels).mean(axis=1)) if share else None,
    )


def _difference(parts: _Parts, drawn: Resamples, one: Predictions, other: Predictions) -> Estimate:
    """Accuracy of `one` less that of `other` (both `[seeds, N]`), seeds averaged, on the same resamples of groups."""
    gain = (one == parts.test.labels).mean(axis=0) - (other == parts.test.labels).mean(axis=0)
    value = drawn.ratio(gain)
    assert value is not None  # noqa: S101 - the test part is not empty
    return value


def _seeds_p(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    if np.ptp(one - other) < 1e-12:
        return None  # no test can judge
    return float(np.asarray(stats.ttest_rel(one, other), np.float64)[1])


def _quality(generator: Generator, config: GeneratorConfig, parts: _Parts, fabric: Fabric) -> Quality:
    """The measures of `training.generation.quality`, by a classifier trained on real images with augmentation."""
    random = np.random.default_rng(config.seed)
    wanted = random.choice(parts.training.labels, _QUALITY_IMAGES)
    made = generate(generator, wanted, config.seed + 1000)
    judge = train_classifier(
        parts.training,
        len(config.classes),
        config.experiment.classifier,
        config.seed,
        augmentation=CLASSICAL,
        fabric=fabric,
        description="judge",
    )
    called, unseen = predict(judge, made, fabric), parts.validation
    known = features(judge, parts.training.images, fabric)
    sets = {"generated": made, "unseen": unseen.images}
    distances = {name: nearest(images, parts.training.images) for name, images in sets.items()}
    recognised = {
        name: float((called == wanted)[wanted == number].mean()) for number, name in enumerate(config.classes)
    }
    return Quality(
        images=len(made),
        recognised=recognised | {"all": float((called == wanted).mean())},
        recognised_real=float((predict(judge, unseen.images, fabric) == unseen.labels).mean()),
        frechet={name: frechet_distance(known, features(judge, images, fabric)) for name, images in sets.items()},
        nearest_median={name: float(np.median(values)) for name, values in distances.items()},
        memorised_share=memorised_share(distances["generated"], distances["unseen"]),
        spread={name: spread(images) for name, images in sets.items()},
    )


def _name(classical: bool, share: float) -> str:
    return f"{'classical' if classical else 'plain'}+{share:.0%}"
