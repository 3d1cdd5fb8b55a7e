from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from training.datasets.duplicates import clusters
from training.datasets.record import DatasetError, Record
from training.datasets.split import PARTS, Split, make_split


def record(name: str, label: str, group: str, sequence: int | None = None) -> Record:
    return Record(name, label, group, lambda: np.zeros((2, 2), np.uint8), sequence=sequence)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[Record], np.ndarray]:
    """Records with known patients or with blocks of numbers, and pairs of near duplicates among them."""
    count = draw(st.integers(3, 60))
    known = draw(st.booleans())
    records: list[Record] = []
    for index in range(count):
        label = draw(st.sampled_from("ab"))
        group = f"p{draw(st.integers(0, 20))}" if known else f"{label}/{index // 4}"
        records.append(record(f"r{index}", label, group, None if known else index))
    ends = st.integers(0, count - 1)
    drawn = draw(st.lists(st.tuples(ends, ends).filter(lambda pair: pair[0] < pair[1]), max_size=12))
    return records, np.array(drawn, np.int64).reshape(-1, 2)


guards = st.integers(0, 5)
seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(datasets(), seeds, guards)
def test_parts_are_disjoint_and_complete(dataset: tuple[list[Record], np.ndarray], seed: int, guard: int) -> None:
    records, pairs = dataset
    split = make_split(records, pairs, seed=seed, guard=guard)
    listed = [*split.train, *split.validation, *split.test, *split.excluded]
    assert sorted(listed) == sorted(record.id for record in records)


@settings(deadline=None)
@given(datasets(), seeds, guards)
def test_nothing_inseparable_straddles_parts(dataset: tuple[list[Record], np.ndarray], seed: int, guard: int) -> None:
    records, pairs = dataset
    split = make_split(records, pairs, seed=seed, guard=guard)
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    cluster = clusters(len(records), pairs)
    for keys in ([r.group for r in records], cluster.tolist()):
        parts: dict[object, set[str]] = {}
        for key, each in zip(keys, records, strict=True):
            if each.id in part_of:
                parts.setdefault(key, set()).add(part_of[each.id])
        assert all(len(found) == 1 for found in parts.values())


@settings(deadline=None)
@given(datasets(), seeds, guards)
def test_the_guard_keeps_neighbours_of_other_parts_out(
    dataset: tuple[list[Record], np.ndarray], seed: int, guard: int
) -> None:
    records, pairs = dataset
    split = make_split(records, pairs, seed=seed, guard=guard)
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    placed = [each for each in records if each.sequence is not None and each.id in part_of]
    for a in placed:
        for b in placed:
            near = a.label == b.label and abs((a.sequence or 0) - (b.sequence or 0)) <= guard
            assert not near or part_of[a.id] == part_of[b.id]


@settings(deadline=None, max_examples=30)
@given(datasets(), seeds)
def test_the_same_seed_gives_the_same_split(dataset: tuple[list[Record], np.ndarray], seed: int) -> None:
    records, pairs = dataset
    assert make_split(records, pairs, seed=seed) == make_split(records, pairs, seed=seed)


NO_PAIRS = np.zeros((0, 2), np.int64)


def many() -> list[Record]:
    return [record(f"{i}", "ab"[i % 4 == 0], f"p{i // 2}") for i in range(400)]


def test_shares_hold_in_every_class() -> None:
    records = many()
    split = make_split(records, NO_PAIRS, seed=0, test_share=0.15, validation_share=0.2)
    labels = {each.id: each.label for each in records}
    for label in "ab":
        total = sum(each.label == label for each in records)
        share = {part: sum(labels[n] == label for n in getattr(split, part)) / total for part in PARTS}
        assert share["test"] == pytest.approx(0.15, abs=0.03)
        assert share["validation"] == pytest.approx(0.17, abs=0.03)


def test_another_seed_gives_another_split() -> None:
    assert make_split(many(), NO_PAIRS, seed=0).test != make_split(many(), NO_PAIRS, seed=1).test


def test_the_test_part_is_never_thinned_by_the_guard() -> None:
    records = [record(f"{i}", "a", f"b{i // 10}", i) for i in range(200)]
    split, unguarded = (make_split(records, NO_PAIRS, seed=0, guard=guard) for guard in (4, 0))
    assert split.test == unguarded.test
    assert split.excluded
    assert not set(split.excluded) & set(unguarded.test)


def test_a_split_survives_its_file(tmp_path: Path) -> None:
    split = make_split(many(), NO_PAIRS, seed=3)
    split.save(tmp_path / "new" / "split.json")
    again = Split.load(tmp_path / "new" / "split.json")
    assert again == split
    assert again.digest() == split.digest()
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(ValidationError):
        Split.load(tmp_path / "wrong.json")


def test_select_names_what_the_dataset_lacks() -> None:
    records = many()
    split = make_split(records, NO_PAIRS, seed=0)
    assert [each.id for each in split.select(records, "test")] == list(split.test)
    lacking = [each for each in records if each.id != split.test[0]]
    with pytest.raises(DatasetError, match=f"1 images of the split's test part .* first: {split.test[0]}"):
        split.select(lacking, "test")
