"""What a dataset holds, which of its images are the same, and whether a split keeps those together."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.validation import Strict
from training.datasets.duplicates import clusters, near_pairs, perceptual_hash
from training.datasets.pictures import colour_spread
from training.datasets.record import Image, Record
from training.datasets.split import PARTS, Split

COLOURFUL = 0.02  # mean spread of the channels above which a picture is no grey one with JPEG's rounding
SIZES_NAMED = 8
EXAMPLES_NAMED = 20
Key = TypeVar("Key", int, str)


class ClassCount(Strict):
    """One class: its images, how many of them have a mask, and their patients or blocks."""

    name: str
    images: int
    masks: int
    groups: int


class SizeCount(Strict):
    """How many images are `width` x `height` pixels."""

    width: int
    height: int
    images: int


class Pair(Strict):
    """Two near duplicates with different labels."""

    ids: tuple[str, str]
    labels: tuple[str, str]


class Duplicates(Strict):
    """Images that are the same.

    `exact_sets` sets of images with equal pixels (SHA-256), of `exact_images` images. `clusters` groups linked by
    near duplicates (perceptual hash; exact ones are among them), of `cluster_images` images, the largest of
    `largest`. `distinct` is what is left when each cluster counts once. `crossing` pairs of near duplicates have
    different labels; `examples` are the first of them.
    """

    exact_sets: int
    exact_images: int
    clusters: int
    cluster_images: int
    largest: int
    distinct: int
    crossing: int
    examples: tuple[Pair, ...]


class PartCount(Strict):
    """One part of a split: its images, their patients or blocks, and the images of each class."""

    name: str
    images: int
    groups: int
    classes: dict[str, int]


class SplitCheck(Strict):
    """A split against the dataset.

    `straddling_groups` and `straddling_clusters` (ids of near duplicates) lie in two parts. `repeated` ids are in a
    split twice, `missing` ids only in the split, `unassigned` ids only in the dataset.
    """

    digest: str
    parts: tuple[PartCount, ...]
    excluded: int
    straddling_groups: tuple[str, ...]
    straddling_clusters: tuple[tuple[str, ...], ...]
    repeated: tuple[str, ...]
    missing: tuple[str, ...]
    unassigned: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing straddles two parts, and split and dataset hold the same ids."""
        faults = (self.straddling_groups, self.straddling_clusters, self.repeated, self.missing, self.unassigned)
        return not any(faults)


class Description(Strict):
    """A dataset. `sizes` are the most common ones of `distinct_sizes`; `colour` images are read as grey."""

    images: int
    groups: int
    masks: int
    grey: int
    colour: int
    classes: tuple[ClassCount, ...]
    sizes: tuple[SizeCount, ...]
    distinct_sizes: int
    duplicates: Duplicates
    split: SplitCheck | None


def describe(records: Sequence[Record], split: Split | None = None) -> Description:
    """Read every image once and count.

    Args:
        records: the dataset, at least one image.
        split: a split of it, to be checked.
    """
    prints = [_fingerprint(record) for record in tqdm(records, desc="reading", unit="image", leave=False, disable=None)]
    pairs = near_pairs(np.stack([each.hash for each in prints]))
    cluster = clusters(len(records), pairs)
    sizes = Counter(each.size for each in prints)
    colour = sum(each.colour for each in prints)
    return Description(
        images=len(records),
        groups=len({record.group for record in records}),
        masks=sum(record.load_mask is not None for record in records),
        grey=len(records) - colour,
        colour=colour,
        classes=tuple(_class_count(name, records) for name in sorted({record.label for record in records})),
        sizes=tuple(
            SizeCount(width=width, height=height, images=images)
            for (width, height), images in sizes.most_common(SIZES_NAMED)
        ),
        distinct_sizes=len(sizes),
        duplicates=_duplicates(records, [each.digest for each in prints], pairs, cluster),
        split=None if split is None else check_split(records, split, cluster),
    )


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    digest: bytes
    size: tuple[int, int]
    colour: bool
    hash: NDArray[np.bool_]


def _fingerprint(record: Record) -> _Fingerprint:
    image = record.load_image()
    height, width = image.shape
    return _Fingerprint(
        digest=pixel_digest(image),
        size=(width, height),
        colour=record.picture is not None and colour_spread(record.picture) > COLOURFUL,
        hash=perceptual_hash(image),
    )


def pixel_digest(image: Image) -> bytes:
    """SHA-256 of an image's shape, type and pixels: equal for equal pixels, whatever the file."""
    head = f"{image.dtype.str}{image.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).digest()


def _class_count(name: str, records: Sequence[Record]) -> ClassCount:
    members = [record for record in records if record.label == name]
    return ClassCount(
        name=name,
        images=len(members),
        masks=sum(record.load_mask is not None for record in members),
        groups=len({record.group for record in members}),
    )


def _duplicates(
    records: Sequence[Record], digests: Sequence[bytes], pairs: NDArray[np.int64], cluster: NDArray[np.int32]
) -> Duplicates:
    same = [count for count in Counter(digests).values() if count > 1]
    counts = np.bincount(cluster)
    linked = counts[counts > 1]
    crossing = [(records[i], records[j]) for i, j in pairs if records[i].label != records[j].label]
    return Duplicates(
        exact_sets=len(same),
        exact_images=sum(same),
        clusters=len(linked),
        cluster_images=int(linked.sum()),
        largest=int(counts.max()),
        distinct=len(counts),
        crossing=len(crossing),
        examples=tuple(Pair(ids=(a.id, b.id), labels=(a.label, b.label)) for a, b in crossing[:EXAMPLES_NAMED]),
    )


def check_split(records: Sequence[Record], split: Split, cluster: NDArray[np.int32]) -> SplitCheck:
    """Count a split's parts, and find what lies in two of them.

    Args:
        records: the dataset.
        split: the split.
        cluster: int32 `[N]`, cluster of near duplicates of each record (see `duplicates.clusters`).
    """
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    listed = [*split.train, *split.validation, *split.test, *split.excluded]
    known = {record.id for record in records}
    by_cluster: dict[int, list[str]] = defaultdict(list)
    for record, number in zip(records, cluster, strict=True):
        by_cluster[int(number)].append(record.id)
    groups = _straddling(((record.group, record.id) for record in records), part_of)
    numbers = _straddling(((n, name) for n, names in by_cluster.items() for name in names), part_of)
    return SplitCheck(
        digest=split.digest(),
        parts=tuple(_part_count(part, records, part_of) for part in PARTS),
        excluded=len(split.excluded),
        straddling_groups=tuple(sorted(groups)),
        straddling_clusters=tuple(tuple(by_cluster[number]) for number in sorted(numbers)),
        repeated=tuple(sorted(name for name, count in Counter(listed).items() if count > 1)),
        missing=tuple(sorted(set(listed) - known)),
        unassigned=tuple(sorted(known - set(listed))),
    )


def _straddling(members: Iterable[tuple[Key, str]], part_of: dict[str, str]) -> set[Key]:
    """Keys with ids in two parts; excluded ids are in none."""
    parts: dict[Key, set[str]] = defaultdict(set)
    for key, name in members:
        if name in part_of:
            parts[key].add(part_of[name])
    return {key for key, found in parts.items() if len(found) > 1}


def _part_count(part: str, records: Sequence[Record], part_of: dict[str, str]) -> PartCount:
    members = [record for record in records if part_of.get(record.id) == part]
    return PartCount(
        name=part,
        images=len(members),
        groups=len({record.group for record in members}),
        classes=dict(sorted(Counter(record.label for record in members).items())),
    )
