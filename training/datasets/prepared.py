"""A dataset as model input: prepared once, kept in a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.preprocessing import prepare, prepare_mask
from service.types import Frame, Grey8, PreprocessingSpec
from training.config import TrainConfig
from training.datasets import read_dataset
from training.datasets.record import DatasetError, Record
from training.datasets.split import Part, Split


@dataclass(frozen=True, slots=True)
class Prepared:
    """Model input with its labels.

    `images` uint8 `[N, S, S]`; `masks` uint8 `[N, S, S]` (share of a pixel inside the lesion, 0..255);
    `has_mask` bool `[N]`; `labels` int64 `[N]`; `groups` and `ids`, one per image.

    The others are those of `Record`, one per image, and need not be given: `sources`, `weightings` and `planes` (""
    where unknown), `levels` float64 `[N]` (NaN where unknown), `skull_stripped` (None where unknown), `typed` bool
    `[N]`.
    """

    images: Grey8
    masks: Grey8
    has_mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    ids: tuple[str, ...]
    sources: tuple[str, ...] = ()
    weightings: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    levels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    skull_stripped: tuple[bool | None, ...] = ()
    typed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        """Fill in what was not given: unknown for every image, and every class judged."""
        count = len(self.labels)
        unknown: dict[str, object] = {
            "sources": ("",) * count,
            "weightings": ("",) * count,
            "planes": ("",) * count,
            "levels": np.full(count, np.nan),
            "skull_stripped": (None,) * count,
            "typed": np.ones(count, np.bool_),
        }
        for name, values in unknown.items():
            given = len(getattr(self, name))
            if given not in (0, count):
                raise ValueError(f"{name} holds {given} values for {count} images")
            if not given:
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: Prepared) -> Prepared:
        """Put another set of images behind these; the pixels are copied into memory."""
        return Prepared(
            images=np.concatenate([self.images, other.images]),
            masks=np.concatenate([self.masks, other.masks]),
            has_mask=np.concatenate([self.has_mask, other.has_mask]),
            labels=np.concatenate([self.labels, other.labels]),
            groups=self.groups + other.groups,
            ids=self.ids + other.ids,
            sources=self.sources + other.sources,
            weightings=self.weightings + other.weightings,
            planes=self.planes + other.planes,
            levels=np.concatenate([self.levels, other.levels]),
            skull_stripped=self.skull_stripped + other.skull_stripped,
            typed=np.concatenate([self.typed, other.typed]),
        )


def prepare_records(
    records: Sequence[Record], classes: Sequence[str], spec: PreprocessingSpec, cache: Path
) -> Prepared:
    """Prepare all records, or open what an earlier call with the same records and specification left in `cache`.

    Raises:
        DatasetError: a record's label is not among `classes`.
    """
    strangers = sorted({record.label for record in records} - set(classes))
    if strangers:
        raise DatasetError(f"labels {strangers} are not among the model's classes {list(classes)}")
    path = cached_at(cache, [record.id for record in records], spec)
    if not path.exists():
        _fill(path, records, spec)
    stack = np.load(path, mmap_mode="r")
    index = {name: number for number, name in enumerate(classes)}
    return Prepared(
        images=stack[:, 0],
        masks=stack[:, 1],
        has_mask=np.array([record.load_mask is not None for record in records], np.bool_),
        labels=np.array([index[record.label] for record in records], np.int64),
        groups=tuple(record.group for record in records),
        ids=tuple(record.id for record in records),
        sources=tuple(record.source or "" for record in records),
        weightings=tuple(record.weighting or "" for record in records),
        planes=tuple(record.plane or "" for record in records),
        levels=np.array([np.nan if record.level is None else record.level for record in records], np.float64),
        skull_stripped=tuple(record.skull_stripped for record in records),
        typed=np.array([record.typed for record in records], np.bool_),
    )


def cached_at(cache: Path, ids: Sequence[str], spec: PreprocessingSpec) -> Path:
    """Where `prepare_records` keeps images and masks, uint8 `[N, 2, S, S]`, of records with these ids."""
    key = json.dumps([list(ids), spec.model_dump()], sort_keys=True)
    return cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"


def _fill(path: Path, records: Sequence[Record], spec: PreprocessingSpec) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    shape = (len(records), 2, spec.size, spec.size)
    stack = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    for row, record in enumerate(tqdm(records, desc="preparing", unit="image", leave=False)):
        item = prepare(Frame(record.id, record.load_image()), spec)
        stack[row, 0] = item.pixels
        stack[row, 1] = 0 if record.load_mask is None else prepare_mask(record.load_mask(), item)
    stack.flush()
    del stack
    partial.replace(path)


def prepare_part(
    config: TrainConfig, data: Path, part: Part, cache: Path, keep: Callable[[Record], bool] = lambda _: True
) -> Prepared:
    """The prepared images of one part of a run's dataset.

    Args:
        config: names the adapter, the split, the classes and the preprocessing.
        data: folder of the dataset.
        part: `train`, `validation` or `test`.
        cache: where prepared images are kept.
        keep: which records of the part are wanted; all by default.

    Raises:
        DatasetError: the dataset is not what the configuration says.
    """
    records = read_dataset(config.data.adapter, data, **config.data.options)
    chosen = [record for record in Split.load(config.data.split).select(records, part) if keep(record)]
    return prepare_records(chosen, config.classes, config.preprocessing, cache)
