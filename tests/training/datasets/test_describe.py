from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from training.datasets import read_dataset
from training.datasets.describe import describe, pixel_digest
from training.datasets.record import Record
from training.datasets.split import Split
from training.datasets.tables import print_description


def scene(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def write_dataset(root: Path) -> list[Record]:
    """Two classes: 1 and 2 have equal pixels and different labels, 3 is a re-encoded 1, 5 is in colour."""
    for label in "ab":
        (root / label).mkdir(parents=True)
    Image.fromarray(scene(1)).save(root / "a" / "1.png")
    Image.fromarray(scene(1)).save(root / "b" / "2.bmp")
    Image.fromarray(scene(1)).save(root / "a" / "3.jpg", quality=50)
    Image.fromarray(scene(4, (48, 48))).save(root / "b" / "4.png")
    Image.fromarray(np.stack([scene(5), scene(6), scene(7)], axis=2)).save(root / "b" / "5.png")
    return read_dataset("class_folders", root, single=("a", "b"))


def split_of(**parts: tuple[str, ...]) -> Split:
    empty: dict[str, tuple[str, ...]] = {"train": (), "validation": (), "test": (), "excluded": ()}
    return Split(seed=0, test_share=0.2, validation_share=0.2, guard=0, **(empty | parts))


def test_counts(tmp_path: Path) -> None:
    found = describe(write_dataset(tmp_path))
    assert (found.images, found.groups, found.masks, found.grey, found.colour) == (5, 5, 0, 4, 1)
    assert [(c.name, c.images, c.groups) for c in found.classes] == [("a", 2, 2), ("b", 3, 3)]
    assert [(s.width, s.height, s.images) for s in found.sizes] == [(80, 64, 4), (48, 48, 1)]
    assert found.split is None


def test_duplicates_and_those_that_cross_labels(tmp_path: Path) -> None:
    found = describe(write_dataset(tmp_path)).duplicates
    assert (found.exact_sets, found.exact_images) == (1, 2)
    assert (found.clusters, found.cluster_images, found.largest, found.distinct) == (1, 3, 3, 3)
    assert found.crossing == 2
    assert {pair.ids for pair in found.examples} == {("a/1.png", "b/2.bmp"), ("a/3.jpg", "b/2.bmp")}


def test_a_sound_split(tmp_path: Path) -> None:
    split = split_of(train=("a/1.png", "a/3.jpg"), validation=("b/4.png",), test=("b/5.png",), excluded=("b/2.bmp",))
    check = describe(write_dataset(tmp_path), split).split
    assert check is not None
    assert check.sound
    assert {part.name: part.classes for part in check.parts} == {
        "train": {"a": 2},
        "validation": {"b": 1},
        "test": {"b": 1},
    }
    assert check.excluded == 1


def test_a_leaking_split(tmp_path: Path) -> None:
    records = write_dataset(tmp_path)
    split = split_of(train=("a/1.png", "b/4.png", "b/9.png"), validation=("b/4.png",), test=("a/3.jpg", "b/2.bmp"))
    check = describe(records, split).split
    assert check is not None
    assert not check.sound
    assert check.straddling_clusters == (("a/1.png", "a/3.jpg", "b/2.bmp"),)
    assert (check.repeated, check.missing, check.unassigned) == (("b/4.png",), ("b/9.png",), ("b/5.png",))


def test_a_group_in_two_parts() -> None:
    records = [Record(f"{i}", "a", "patient-7", lambda i=i: scene(i)) for i in range(2)]
    check = describe(records, split_of(train=("0",), test=("1",))).split
    assert check is not None
    assert check.straddling_groups == ("patient-7",)
    assert not check.straddling_clusters


def test_digests_are_of_pixels() -> None:
    assert pixel_digest(scene(1)) == pixel_digest(scene(1)[::1].copy())
    assert pixel_digest(scene(1)) != pixel_digest(scene(1).astype(np.float32))
    assert pixel_digest(np.zeros((2, 8), np.uint8)) != pixel_digest(np.zeros((4, 4), np.uint8))


def test_tables_show_the_counts_and_the_faults(tmp_path: Path) -> None:
    records = write_dataset(tmp_path)
    stream = StringIO()
    description = describe(records, split_of(train=("a/1.png",), test=("a/3.jpg",)))
    print_description(description, Console(file=stream, width=100))
    text = stream.getvalue()
    assert "80 x 64" in text
    assert "a/1.png (a) = b/2.bmp (b)" in text
    assert "1 clusters of near duplicates in two parts, first: a/1.png = a/3.jpg = b/2.bmp" in text
    assert "no group and no cluster" not in text
