"""Adapters for folders of several sources, and how a split is extended to them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.datasets import read_dataset
from training.datasets.guess import guess_adapter
from training.datasets.record import DatasetError, Record
from training.datasets.sources import COLUMNS, extend_split
from training.datasets.split import Split

HEAD = ",".join(COLUMNS)
SPLIT = Split(seed=3, test_share=0.15, validation_share=0.2, guard=8, train=(), validation=(), test=(), excluded=())


def save(path: Path, level: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path)) + level).integers(0, 255, (40, 40)).astype(np.uint8)
    Image.fromarray(pixels if level else np.zeros_like(pixels)).save(path)


def write_index(root: Path, *lines: str) -> Path:
    """Write an index and the files that it lists."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "index.csv").write_text("\n".join((HEAD, *lines)) + "\n")
    for line in lines:
        file, mask, *_ = line.split(",")
        save(root / file)
        if mask:
            save(root / mask, 0 if "empty" in mask else 90)
    return root


@pytest.fixture
def multi(tmp_path: Path) -> Path:
    write_index(
        tmp_path / "multi",
        "lgg/a/1.jpg,lgg/a/1_mask.png,lgg,A,tumour,FLAIR,axial,0.25",
        "lgg/a/2.jpg,,lgg,A,no_tumour,T1 post,axial,1.00",
        "ms_x_t1/1.jpg,,ms_x_t1,7,no_tumour,T1,mixed,",
        "ms_x_flair/1.jpg,,ms_x_flair,7,no_tumour,FLAIR,mixed,",
        "brats23_flair/1.jpg,brats23_flair/1_mask.png,brats23_flair,7,tumour,FLAIR,axial,",
        "alzheimer_k/1.jpg,,alzheimer_k,,no_tumour,T1,axial,",
        "ood_spine/1.jpg,,ood_spine,7,ood,T2,sagittal,",
        "oct_duke/1.jpg,oct_duke/1_mask.png,oct_duke,S1,DME,OCT,,",
        "oct_duke/2.jpg,oct_duke/2_empty.png,oct_duke,S1,DME,OCT,,",
        "oct_duke/3.jpg,,oct_duke,S1,DME,OCT,,",
    )
    save(tmp_path / "brain_mri/images/glioma/100.jpg")
    save(tmp_path / "brain_mri/masks/glioma/100.png")
    save(tmp_path / "brain_mri/images/no_tumor/5.jpg")
    save(tmp_path / "retinal_oct/CNV/CNV-77-1.jpeg")
    return tmp_path


def test_an_index_gives_what_it_knows_of_each_image(multi: Path) -> None:
    records = {record.id: record for record in read_dataset("indexed", multi / "multi")}
    assert len(records) == 10
    tumour = records["lgg/a/1.jpg"]
    assert (tumour.label, tumour.typed, tumour.source, tumour.group) == ("tumour", False, "lgg", "lgg/A")
    assert (tumour.weighting, tumour.plane, tumour.level, tumour.skull_stripped) == ("FLAIR", "axial", 0.25, False)
    assert tumour.load_mask is not None
    assert tumour.load_mask().shape == tumour.load_image().shape == (40, 40)
    healthy = records["alzheimer_k/1.jpg"]
    assert (healthy.group, healthy.level, healthy.load_mask, healthy.typed) == (healthy.id, None, None, True)
    assert healthy.skull_stripped is True
    assert records["ood_spine/1.jpg"].skull_stripped is None
    assert guess_adapter(multi / "multi") == "indexed"


def test_cohorts_that_number_patients_alike_do_not_share_them(multi: Path) -> None:
    groups = {record.id: record.group for record in read_dataset("indexed", multi / "multi")}
    assert groups["ms_x_t1/1.jpg"] == groups["ms_x_flair/1.jpg"]
    assert len({groups[f"{name}/1.jpg"] for name in ("ms_x_t1", "brats23_flair", "ood_spine")}) == 3


def test_brain_sources_are_the_brain_folders_and_the_brains_beside_them(multi: Path) -> None:
    records = {record.id: record for record in read_dataset("brain_sources", multi)}
    before = {record.id: record for record in read_dataset("brain_folders", multi / "brain_mri")}
    assert before.keys() <= records.keys()
    for name, record in before.items():
        assert (records[name].label, records[name].group) == (record.label, record.group)
    others = records.keys() - before.keys()
    assert {name.split("/")[1] for name in others} == {"lgg", "ms_x_t1", "ms_x_flair", "brats23_flair", "alzheimer_k"}
    assert {(r.label, r.typed) for n, r in records.items() if n in others} == {("glioma", False), ("no_tumor", True)}
    assert {records[name].source for name in before} == {"figshare", "br35h"}
    assert all(record.typed for name, record in records.items() if name in before)
    alone = records["multi/alzheimer_k/1.jpg"]
    assert alone.group == alone.id


def test_of_the_oct_scans_beside_kermany_only_those_with_fluid_are_read(multi: Path) -> None:
    records = read_dataset("oct_sources", multi)
    assert [(r.id, r.label, r.source) for r in records] == [
        ("CNV/CNV-77-1.jpeg", "CNV", "kermany"),
        ("multi/oct_duke/1.jpg", "DME", "oct_duke"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,,lgg,A,tumour,T1,axial,high", "is no number"),
        ("a.jpg,,lgg,A,tumour,T1,axial,1.5", "not between 0 and 1"),
        ("a.jpg,,lgg,A,tumour,T1,axial,nan", "not between 0 and 1"),
    ],
)
def test_a_level_that_is_none_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset("indexed", write_index(tmp_path, line))


def test_an_index_that_is_not_what_it_must_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"index\.csv is missing"):
        read_dataset("indexed", tmp_path)
    write_index(tmp_path, "a.jpg,,lgg,A,tumour,T1,axial,", "a.jpg,,lgg,A,tumour,T1,axial,")
    with pytest.raises(DatasetError, match="listed twice"):
        read_dataset("indexed", tmp_path)
    with pytest.raises(DatasetError, match="no image of the sources"):
        read_dataset("indexed", tmp_path, sources=("ms_",))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a\.jpg is missing"):
        read_dataset("indexed", tmp_path)
    (tmp_path / "index.csv").write_text("file,mask\n")
    with pytest.raises(DatasetError, match="no column source, patient"):
        read_dataset("indexed", tmp_path)


def patient(number: int, source: str = "lgg", image: int = 0) -> Record:
    group, name = f"{source}/{number}", f"multi/{source}/{number}-{image}"
    return Record(name, "glioma", group, lambda: np.zeros((2, 2), np.uint8), source=source)


def test_a_split_is_extended_by_the_hash_of_the_patients_number() -> None:
    records = [patient(number, image=image) for number in range(300) for image in range(2)]
    known = Record("glioma/1.jpg", "glioma", "glioma/block-0000", lambda: np.zeros((2, 2), np.uint8))
    split = extend_split([known, *records], SPLIT.model_copy(update={"test": (known.id,)}))
    assert split.test[0] == known.id
    for number in range(300):
        place = int(hashlib.sha256(str(number).encode()).hexdigest()[:8], 16) / 2**32
        part = split.test if place < 0.15 else split.validation if place < 0.27 else split.train
        assert {f"multi/lgg/{number}-0", f"multi/lgg/{number}-1"} <= set(part)
    assert len(split.test) + len(split.validation) + len(split.train) == 601
    assert min(len(split.test), len(split.validation)) > 40


def test_small_sets_that_may_share_patients_are_for_training_and_patients_can_be_placed() -> None:
    records = [patient(number, source) for source in ("brats2021_flair", "fets2021_t2") for number in range(60)]
    split = extend_split([*records, patient(1)], SPLIT, {"1": "validation"})
    assert split.validation == ("multi/brats2021_flair/1-0", "multi/fets2021_t2/1-0", "multi/lgg/1-0")
    assert len(split.train) == 118
    with pytest.raises(DatasetError, match="no patient 99"):
        extend_split(records, SPLIT, {"99": "test"})
    with pytest.raises(DatasetError, match=r"not in the dataset, first: gone"):
        extend_split(records, SPLIT.model_copy(update={"train": ("gone",)}))


def test_the_command_extends_a_split(multi: Path) -> None:
    SPLIT.model_copy(update={"test": ("CNV/CNV-77-1.jpeg",)}).save(multi / "base.json")
    words = ["data", "split", multi, multi / "out.json", "--adapter", "oct_sources"]
    assert main([*map(str, words), "--extend", str(multi / "base.json"), "--place", "S1=test"]) == 0
    split = Split.load(multi / "out.json")
    assert split.test == ("CNV/CNV-77-1.jpeg", "multi/oct_duke/1.jpg")


SPLITS = Path(__file__).parents[3] / "training" / "splits"


@pytest.mark.parametrize(("before", "extended"), [("brain-mri", "brain-sources"), ("retinal-oct", "oct-sources")])
def test_the_splits_across_sources_keep_the_parts_of_the_study(before: str, extended: str) -> None:
    old, new = (Split.load(SPLITS / f"{name}.json") for name in (before, extended))
    for part in ("train", "validation", "test", "excluded"):
        names = getattr(new, part)
        assert tuple(name for name in names if not name.startswith("multi/")) == getattr(old, part)
    added = [name for part in (new.train, new.validation, new.test) for name in part if name.startswith("multi/")]
    assert len(added) == len(set(added)) == {"brain-sources": 6235, "oct-sources": 40}[extended]
