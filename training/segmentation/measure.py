"""From a segmentation checkpoint and a dataset to Dice and IoU by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric
from numpy.typing import NDArray
from tqdm import tqdm

from service.outlines import mask_on_frame
from service.preprocessing import prepare
from service.types import Float, Frame, Grey8, PreprocessingSpec
from training.bootstrap import Estimate, Resamples, draw
from training.datasets import read_dataset
from training.datasets.prepared import Prepared, prepare_records
from training.datasets.record import DatasetError, Record
from training.datasets.sources import in_study
from training.datasets.split import Split
from training.measure import independent_groups
from training.provenance import data_digest, describe_machine, file_digest
from training.segmentation.config import SegmentationConfig
from training.segmentation.loop import load_unet, predict_masks
from training.segmentation.report import Score, SegmentationReport

_THRESHOLDS = np.round(np.arange(0.1, 0.91, 0.05), 2)
_CHOSEN_BY = "largest mean Dice of the outlined images of the validation part"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels inside the reader's outline, inside the model's, and inside both; int64 `[N]` each."""

    outlined: NDArray[np.int64]
    called: NDArray[np.int64]
    both: NDArray[np.int64]

    @property
    def dice(self) -> NDArray[np.float64]:
        """Twice what is in both over the sum (Dice 1945), 1 where both are empty, `[N]`."""
        return _ratio(2 * self.both, self.outlined + self.called)

    @property
    def iou(self) -> NDArray[np.float64]:
        """What is in both over what is in either (Jaccard 1901), 1 where both are empty, `[N]`."""
        return _ratio(self.both, self.outlined + self.called - self.both)


@dataclass(frozen=True, slots=True)
class Outlining:
    """A network that is measured.

    Attributes:
        predict: probabilities float32 `[N, S, S]` of prepared images uint8 `[N, S, S]`.
        config: of its training run.
        device: that it runs on.
        checkpoint_digest: SHA-256 of the checkpoint that it comes from.
    """

    predict: Callable[[Grey8], Float]
    config: SegmentationConfig
    device: str
    checkpoint_digest: str


def evaluate(
    checkpoint: Path, root: Path, cache: Path, *, resamples: int = 2000, seed: int = 0, command: str = ""
) -> tuple[SegmentationReport, list[Score]]:
    """Measure a checkpoint on the test part.

    Args:
        checkpoint: `last.pt` of a run.
        root: the dataset's folder.
        cache: folder for prepared images.
        resamples: how many bootstrap resamples the intervals come from.
        seed: of the resamples.
        command: what the report says it was made with.

    Raises:
        DatasetError: the dataset is not what the checkpoint was trained on, or nothing is outlined.
        FileNotFoundError: checkpoint or split file is missing.
    """
    network, config = load_unet(checkpoint)
    fabric = Fabric(accelerator="auto", devices=1, precision="32-true")
    fabric.to_device(network)
    size = config.preprocessing.size
    measured = Outlining(
        lambda images: predict_masks(network, images, fabric, size),
        config,
        str(fabric.device),
        file_digest(checkpoint),
    )
    return evaluate_outlining(measured, root, cache, resamples=resamples, seed=seed, command=command)


def evaluate_outlining(
    measured: Outlining, root: Path, cache: Path, *, resamples: int = 2000, seed: int = 0, command: str = ""
) -> tuple[SegmentationReport, list[Score]]:
    """Measure a network that outlines; arguments and errors as of `evaluate`."""
    config = measured.config
    records = read_dataset(config.data.adapter, root, **config.data.options)
    split = Split.load(config.data.split)
    known, chosen = split.select(records, "validation"), split.select(records, "test")
    validation, data = (prepare_records(rows, config.classes, config.preprocessing, cache) for rows in (known, chosen))
    size = config.preprocessing.size
    threshold = best_threshold(measured.predict(validation.images), validation)
    found = measured.predict(data.images)
    empty = np.isin(data.labels, [config.classes.index(name) for name in config.healthy])
    if not (data.has_mask & ~empty).any():
        raise DatasetError(f"{config.data.split}: nothing is outlined in the test part")
    overlap = overlap_on_source(chosen, found, config.preprocessing, threshold)
    groups = independent_groups(chosen)
    names = np.array(config.classes)
    study = np.array([in_study(record) for record in chosen], np.bool_)
    outlined = data.has_mask & ~empty
    measured_values = metrics(overlap, data.labels, outlined & study, empty & study, groups, names, resamples, seed)
    if not study.all():
        measured_values |= by_source(overlap, data, outlined, empty, groups, resamples, seed)
    report = SegmentationReport(
        network=config.network,
        size=size,
        outlined_images=int((outlined & study).sum()),
        empty_images=int((empty & study).sum()),
        groups=len(np.unique(groups)),
        groups_by_class={
            name: len(np.unique(groups[data.labels == number])) for number, name in enumerate(config.classes)
        },
        threshold=threshold,
        threshold_chosen_by=_CHOSEN_BY,
        metrics=measured_values,
        resamples=resamples,
        seed=seed,
        checkpoint_digest=measured.checkpoint_digest,
        split_digest=split.digest(),
        data_digest=data_digest(records),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(measured.device),
    )
    return report, _scores(data, groups, names, overlap)


def best_threshold(found: Float, validation: Prepared) -> float:
    """The threshold with the largest mean Dice of the outlined images, on the network's grid.

    Args:
        found: probabilities float32 `[N, S, S]` of the validation images.
        validation: their masks, of the same size.
    """
    rows = np.flatnonzero(validation.has_mask)
    truth = np.stack([validation.masks[row] > 127 for row in rows])
    means = [float(overlap(truth, found[rows] >= threshold).dice.mean()) for threshold in _THRESHOLDS]
    return float(_THRESHOLDS[int(np.argmax(means))])


def overlap(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> Overlap:
    """Compare masks bool `[N, H, W]`."""
    return Overlap(*(np.asarray(m.sum(axis=(1, 2)), np.int64) for m in (truth, called, truth & called)))


def overlap_on_source(records: Sequence[Record], found: Float, spec: PreprocessingSpec, threshold: float) -> Overlap:
    """Compare on the pixels of the source images, as the service reports them.

    Args:
        records: of N images.
        found: their probabilities float32 `[N, S, S]`.
        spec: how they were prepared.
        threshold: probability from which a pixel is inside.
    """
    rows: list[Overlap] = []
    for record, probabilities in zip(tqdm(records, desc="comparing", unit="image", leave=False), found, strict=True):
        image = record.load_image()
        region = prepare(Frame(record.id, image), spec).region
        truth: Grey8 = record.load_mask() if record.load_mask else np.zeros(image.shape, np.uint8)
        called = mask_on_frame(probabilities, region, image.shape, threshold)
        rows.append(overlap(truth[None] > 0, called[None]))
    return Overlap(*(np.concatenate([getattr(row, name) for row in rows]) for name in ("outlined", "called", "both")))


def metrics(
    found: Overlap,
    labels: NDArray[np.int64],
    outlined: NDArray[np.bool_],
    empty: NDArray[np.bool_],
    groups: NDArray[np.int64],
    names: NDArray[np.str_],
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """The measures of `SegmentationReport.metrics` with intervals from whole groups.

    Args:
        found: of N images.
        labels: int64 `[N]`, numbers in `names`.
        outlined: which images a reader outlined, bool `[N]`.
        empty: which show no finding, bool `[N]`.
        groups: group numbers `[N]`.
        names: of the labels.
        resamples: how many bootstrap resamples.
        seed: of the resamples.
    """
    drawn = draw(groups, labels, resamples, seed)
    values: dict[str, Estimate | None] = {}
    for name, scores in (("dice", found.dice), ("iou", found.iou)):
        values[name] = _mean(drawn, scores, outlined)
        for number in np.unique(labels[outlined]):
            values[f"{name}/{names[number]}"] = _mean(drawn, scores, outlined & (labels == number))
    total = (found.outlined + found.called) * outlined
    values["dice_overall"] = drawn.ratio(2 * found.both * outlined, total)
    values["found"] = _mean(drawn, (found.both > 0).astype(np.float64), outlined)
    values["empty_called"] = _mean(drawn, (found.called > 0).astype(np.float64), empty)
    return {name: value for name, value in values.items() if value is not None}


def by_source(
    found: Overlap,
    data: Prepared,
    outlined: NDArray[np.bool_],
    empty: NDArray[np.bool_],
    groups: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Measure `dice/KIND` of the outlined images and `empty_called/KIND` of the empty ones, by source and weighting.

    Args:
        found: of N images.
        data: the images.
        outlined: which images a reader outlined, bool `[N]`.
        empty: which show no finding, bool `[N]`.
        groups: group numbers `[N]`.
        resamples: how many bootstrap resamples.
        seed: of the resamples.
    """
    kinds = [f"{s} {w}".strip() for s, w in zip(data.sources, data.weightings, strict=True)]
    drawn = draw(groups, np.unique(kinds, return_inverse=True)[1].astype(np.int64), resamples, seed)
    values: dict[str, Estimate | None] = {}
    for kind in sorted(set(kinds)):
        here = np.array([one == kind for one in kinds], np.bool_)
        values[f"dice/{kind}"] = _mean(drawn, found.dice, outlined & here)
        values[f"empty_called/{kind}"] = _mean(drawn, (found.called > 0).astype(np.float64), empty & here)
    return {name: value for name, value in values.items() if value is not None}


def _mean(drawn: Resamples, scores: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Estimate | None:
    return drawn.ratio(scores * chosen, chosen.astype(np.float64))


def _scores(data: Prepared, groups: NDArray[np.int64], names: NDArray[np.str_], found: Overlap) -> list[Score]:
    """One row an image; there is no overlap to speak of where the reader outlined nothing."""
    known = found.outlined > 0
    return [
        Score(
            id=data.ids[row],
            group=int(groups[row]),
            label=str(names[data.labels[row]]),
            dice=round(float(found.dice[row]), 6) if known[row] else None,
            iou=round(float(found.iou[row]), 6) if known[row] else None,
            pixels=int(found.outlined[row]),
            pixels_called=int(found.called[row]),
        )
        for row in range(len(data))
    ]


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.ones(len(above)), where=below > 0)
