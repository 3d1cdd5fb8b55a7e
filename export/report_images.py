"""The prepared images that a report stands on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from service.types import Grey8
from training.config import TrainConfig
from training.datasets.prepared import cached_at


@dataclass(frozen=True, slots=True)
class TestImages:
    """The images that the report stands on: prepared, uint8 `[N, H, W, 1]`, with labels int64 `[N]`."""

    __test__ = False  # not a test, whatever pytest makes of the name

    images: Grey8
    labels: NDArray[np.int64]


def read_test_images(report_folder: Path, config: TrainConfig) -> TestImages:
    """Images and labels of a report, from its predictions and its cache.

    Raises:
        ExportError: the report has no predictions, or its prepared images are gone.
    """
    predictions = report_folder / "predictions.csv"
    if not predictions.exists():
        raise ExportError(f"{predictions} is missing; run python -m training evaluate")
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = cached_at(report_folder / "cache", [row["id"] for row in rows], config.preprocessing)
    if not path.exists():
        raise ExportError(f"{path} is missing; run python -m training evaluate without --cache")
    images = np.load(path, mmap_mode="r")[:, 0]
    labels = np.array([config.classes.index(row["label"]) for row in rows], np.int64)
    return TestImages(images[..., None], labels)


def spread(test: TestImages, count: int) -> Grey8:
    """About `count` images, the same number of every class, spread over each: uint8 `[M, H, W, 1]`."""
    classes = np.unique(test.labels)
    each = -(-count // len(classes))
    rows: list[int] = []
    for label in classes:
        members = np.flatnonzero(test.labels == label)
        rows += members[np.linspace(0, len(members) - 1, min(each, len(members))).astype(int)].tolist()
    return np.ascontiguousarray(test.images[np.unique(rows)])
