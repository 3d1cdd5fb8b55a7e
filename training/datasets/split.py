"""Parts of a dataset that share no patient, no block of neighbouring slices and no near duplicate."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from service.validation import Strict
from training.datasets.record import DatasetError, Record
from training.files import write_atomically

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Split(Strict):
    """Record ids by part, and how they came about.

    `excluded` holds slices within `guard` ids of another part, where patients are unknown and a patient's
    slices could lie on both sides of a boundary.
    """

    seed: int
    test_share: float
    validation_share: float
    guard: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 of the split's canonical JSON, hexadecimal."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the split as JSON, atomically."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())

    @staticmethod
    def load(path: Path) -> Split:
        """Read a split file; raises pydantic's ValidationError where it is not one."""
        return Split.model_validate_json(path.read_bytes())

    def select(self, records: Sequence[Record], part: Part) -> list[Record]:
        """The records of one part, in the split's order.

        Raises:
            DatasetError: the dataset lacks a record that the split names.
        """
        by_id = {record.id: record for record in records}
        ids: tuple[str, ...] = getattr(self, part)
        missing = [name for name in ids if name not in by_id]
        if missing:
            raise DatasetError(
                f"{len(missing)} images of the split's {part} part are not in the dataset, first: {missing[0]}"
            )
        return [by_id[name] for name in ids]


def make_split(
    records: Sequence[Record],
    pairs: NDArray[np.int64],
    *,
    seed: int,
    test_share: float = 0.15,
    validation_share: float = 0.2,
    guard: int = 8,
) -> Split:
    """Split by patient or block, stratified by label.

    Args:
        records: the dataset.
        pairs: int `[P, 2]`, indices of near duplicates (see `duplicates.near_pairs`).
        seed: order in which groups are dealt out.
        test_share: share of the images for the test part, which no choice ever looks at.
        validation_share: share of the rest for validation; 0.2 as in the study.
        guard: in classes where only blocks are known, ids this close to another part are left out.
    """
    bundle = _inseparable(records, pairs)
    shares = {
        "train": (1 - test_share) * (1 - validation_share),
        "validation": (1 - test_share) * validation_share,
        "test": test_share,
    }
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(bundle):
        members[int(group)].append(index)
    totals = Counter(record.label for record in records)
    given: dict[tuple[str, str], int] = Counter()
    part_of: dict[int, Part] = {}
    for group in np.random.default_rng(seed).permutation(list(members)):
        label = Counter(records[i].label for i in members[group]).most_common(1)[0][0]
        part = min(PARTS, key=lambda p: given[p, label] / (shares[p] * totals[label]))
        for i in members[group]:
            given[part, records[i].label] += 1
            part_of[i] = part
    excluded = _guarded(records, part_of, guard)

    def ids(part: Part) -> tuple[str, ...]:
        return tuple(r.id for i, r in enumerate(records) if part_of[i] == part and i not in excluded)

    return Split(
        seed=seed,
        test_share=test_share,
        validation_share=validation_share,
        guard=guard,
        train=ids("train"),
        validation=ids("validation"),
        test=ids("test"),
        excluded=tuple(records[i].id for i in sorted(excluded)),
    )


def _inseparable(records: Sequence[Record], pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Component number of each record: one group, or linked by near duplicates, is one component."""
    _, group = np.unique([record.group for record in records], return_inverse=True)
    rows, columns = group[pairs[:, 0]], group[pairs[:, 1]]
    size = int(group.max()) + 1
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    return connected_components(graph, directed=False)[1][group]


def _guarded(records: Sequence[Record], part_of: dict[int, Part], guard: int) -> set[int]:
    """Indices near a boundary, on the side that can spare them: training first, then validation."""
    rows: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.sequence is not None:
            rows[record.label].append((record.sequence, index))
    excluded: set[int] = set()
    for row in rows.values():
        row.sort()
        numbers = np.array([number for number, _ in row])
        ranks = np.array([PARTS.index(part_of[index]) for _, index in row])
        for position, (number, index) in enumerate(row):
            near = ranks[(np.abs(numbers - number) <= guard)]
            if near.max() > ranks[position]:
                excluded.add(index)
    return excluded
