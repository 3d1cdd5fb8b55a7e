"""`python -m export.invariance BUNDLE CONFIG DATA`: measure whether the same anatomy gives the same answer.

Every image of the test part is stored in all ways of `export.storing`, read as the service reads files, and answered.
The result goes into the manifest; a bundle whose labels change too often is refused, and stays as it was.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr
from tqdm import tqdm

from export.errors import LabelsChange
from export.rewrite import rewrite
from export.storing import Picture, Stored, Way, plain, ways
from service.bundle import read_bundle
from service.engine import open_engine
from service.images.reading import read_frames
from service.manifest import Change, Described, Invariance
from service.orientation import turned_back
from service.prediction import predict
from service.preprocessing import prepare
from service.rendering import on_frame
from service.segmenter import is_segmentation, open_segmenter
from service.types import Float, Grey8, Item
from training.commands import run_command
from training.config import DataConfig
from training.datasets import read_dataset
from training.datasets.record import DatasetError, Record
from training.datasets.sources import in_study
from training.datasets.split import Split

COMMAND = "python -m export.invariance BUNDLE CONFIG DATA"
MOST_CHANGED, MOST_CHANGED_RESAMPLED = 0.005, 0.02  # share of labels
_BATCH = 16
_GRID = 48  # maps are compared on so many cells of the picture, each way


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of N images: `labels` int64 `[N]`, `probabilities` `[N, K]`, `maps` float32 `[N, C, h, w]`."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    maps: Float


@dataclass(frozen=True, slots=True)
class Answering:
    """A bundle that answers.

    Attributes:
        manifest: of the bundle.
        answer: from prepared images uint8 `[N, S, S, 1]`.
    """

    manifest: Described
    answer: Callable[[Grey8], Answers]


def open_bundle(path: Path, threads: int = 0) -> Answering:
    """Open a bundle of any task on the CPU.

    A classifier's label is its most probable class and its maps are class activation maps; an outlining model's label
    is whether anything is inside, and its map the mask's probabilities.

    Raises:
        BundleError: it is not what it claims.
    """
    if is_segmentation(path):
        segmenter = open_segmenter(path, threads=threads, device="cpu")
        threshold = segmenter.manifest.operating_point.threshold

        def outline(images: Grey8) -> Answers:
            masks = segmenter.run(images).probabilities
            peaks = masks.max(axis=(1, 2)).astype(np.float64)
            return Answers((peaks >= threshold).astype(np.int64), peaks[:, None], masks[:, None])

        return Answering(segmenter.manifest, outline)
    bundle = read_bundle(path)
    engine = open_engine(bundle, threads=threads, device="cpu")

    def classify(images: Grey8) -> Answers:
        found = engine.run(images)
        rows = [[*predict(logits, bundle.manifest).probabilities.values()] for logits in found.logits]
        return Answers(found.logits.argmax(axis=1).astype(np.int64), np.array(rows), found.cam)

    return Answering(bundle.manifest, classify)


def measure(bundle: Answering, records: Sequence[Record], command: str) -> Invariance:
    """Store every image in every way, and compare the answers with those for the plain file.

    Args:
        bundle: that answers.
        records: of the untouched test part.
        command: that repeats the measurement.

    Returns:
        For each way the share of labels that change, the largest change of a probability, and the rank correlation of
        the maps brought back to the picture (Spearman 1904).
    """
    manifest = bundle.manifest
    stored_in = ways(manifest.preprocessing.pixel_aspect)
    rows: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in stored_in}
    for start in tqdm(range(0, len(records), _BATCH), desc=f"invariance of {manifest.id}", unit="batch"):
        pictures = [_picture(record, manifest) for record in records[start : start + _BATCH]]
        before = [_read(plain(picture), picture, manifest) for picture in pictures]
        expected = bundle.answer(_stack([one.item for one in before]))
        shown = [one.on_picture(expected.maps[row, _about(expected, row)]) for row, one in enumerate(before)]
        for name, way in stored_in.items():
            after = [_read(way.store(picture), picture, manifest) for picture in pictures]
            found = _answer(bundle, before, after, expected)
            for row, one in enumerate(after):
                change = float(np.abs(found.probabilities[row] - expected.probabilities[row]).max())
                brought_back = one.on_picture(found.maps[row, _about(expected, row)])
                alike = _rank_correlation(shown[row], brought_back)
                rows[name].append((bool(found.labels[row] != expected.labels[row]), change, alike))
    return Invariance(
        images=len(records),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        changes={name: _change(rows[name], way) for name, way in stored_in.items()},
    )


def failures(found: Invariance) -> list[str]:
    """Say which ways of storing change too many labels; empty where none does."""
    return [
        f"{name} changes {change.labels_changed:.2%} of the labels, more than {allowed:.1%}"
        for name, change in found.changes.items()
        for allowed in [MOST_CHANGED_RESAMPLED if change.resampled else MOST_CHANGED]
        if change.labels_changed > allowed
    ]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A stored picture as model input, and the way of a map back to the picture."""

    item: Item
    shape: tuple[int, ...]
    stored: Stored

    def on_picture(self, values: Float) -> Float:
        """Bring a map `[h, w]` in the model's orientation to `_GRID` x `_GRID` cells of the picture."""
        whole = on_frame(np.ascontiguousarray(turned_back(values, self.item.turn)), self.item.region, self.shape)
        back = self.stored.restore(whole)
        rows, columns = (np.linspace(0, side - 1, _GRID).round().astype(int) for side in back.shape)
        return back[np.ix_(rows, columns)]


def _picture(record: Record, manifest: Described) -> Picture:
    pixels = record.load_image()
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{record.id}: invariance is measured on images of 8 bits")
    return Picture(
        pixels.astype(np.uint8, copy=False), manifest.kind.modalities[0], manifest.preprocessing.pixel_aspect
    )


def _read(stored: Stored, picture: Picture, manifest: Described) -> _Prepared:
    frame = read_frames(stored.content, "")[stored.frame]
    return _Prepared(prepare(frame, manifest.preprocessing), frame.pixels.shape, stored)


def _stack(items: Sequence[Item]) -> Grey8:
    return np.stack([item.pixels for item in items])[..., np.newaxis]


def _answer(bundle: Answering, before: Sequence[_Prepared], after: Sequence[_Prepared], expected: Answers) -> Answers:
    """Answer the images that differ from those before; equal input gives the equal answer."""
    labels, probabilities, maps = expected.labels.copy(), expected.probabilities.copy(), expected.maps.copy()
    differ = [
        row
        for row, (one, other) in enumerate(zip(before, after, strict=True))
        if not np.array_equal(one.item.pixels, other.item.pixels)
    ]
    if differ:
        found = bundle.answer(_stack([after[row].item for row in differ]))
        labels[differ], probabilities[differ], maps[differ] = found.labels, found.probabilities, found.maps
    return Answers(labels, probabilities, maps)


def _about(expected: Answers, row: int) -> int:
    """Choose the map to compare: that of the label; the only one of an outlining model."""
    return int(expected.labels[row]) if expected.maps.shape[1] > 1 else 0


def _rank_correlation(one: Float, other: Float) -> float:
    """Compute Spearman's rho of two maps, 1 where both are flat."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.array_equal(one, other))
    rho, _ = cast(tuple[float, float], spearmanr(one.ravel(), other.ravel()))
    return float(rho)


def _change(rows: Sequence[tuple[bool, float, float]], way: Way) -> Change:
    labels, probabilities, maps = (np.array(column) for column in zip(*rows, strict=True))
    return Change(
        resampled=way.resampled,
        labels_changed=float(labels.mean()),
        largest_probability_change=float(probabilities.max()),
        map_correlation=float(np.median(maps)),
        lowest_map_correlation=float(maps.min()),
    )


def require_invariance(path: Path, source: DataConfig, data: Path) -> bool:
    """Measure a bundle, and write the result into it.

    Args:
        path: the bundle's folder.
        source: names dataset and split.
        data: folder of the dataset.

    Returns:
        Whether a signature was dropped, which held for the manifest of before.

    Raises:
        LabelsChange: more labels change than may; nothing was written.
        DatasetError: the dataset is not what the configuration says.
    """
    found = measure(open_bundle(path), untouched_records(source, data), COMMAND)
    if refused := failures(found):
        raise LabelsChange("; ".join(refused))
    return rewrite(path, {"invariance": found})


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where the result was written into the bundle, 1 where labels change too often and nothing was written, 2 where
        something is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export.invariance", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of its training run: names the dataset")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the dataset")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        dropped = require_invariance(options.bundle, read_source(options.config), options.data)
    except LabelsChange as error:
        console.print(f"refused, nothing written: {error}", style="red", markup=False)
        return 1
    console.print(f"{options.bundle}: labels hold{'; sign it again' if dropped else ''}", markup=False)
    return 0


def read_source(config: Path) -> DataConfig:
    """Read which dataset and split a run's configuration names; raises as TOML, pydantic and files do."""
    return DataConfig.model_validate(tomllib.loads(config.read_text("utf-8"))["data"])


def untouched_records(source: DataConfig, data: Path) -> list[Record]:
    """Read the test part of a run's dataset, of the study's sources where there are others.

    Args:
        source: names dataset and split.
        data: folder of the dataset.

    Raises:
        DatasetError: the dataset is not what the configuration says.
    """
    records = read_dataset(source.adapter, data, **source.options)
    return [record for record in Split.load(source.split).select(records, "test") if in_study(record)]


if __name__ == "__main__":
    sys.exit(main())
