"""Images of several sources: a folder with an index, alone or beside the data of the study.

`index.csv` has a line for each image with the columns `file`, `mask`, `source`, `patient`, `label`, `sequence`,
`plane` and `level`; files are named relative to the folder, and a cell is empty where nothing is known.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from service.types import Grey8
from training.datasets import brain_folders, kermany
from training.datasets.class_folders import read_grey, read_mask
from training.datasets.record import DatasetError, Record
from training.datasets.split import PARTS, Part, Split

INDEX = "index.csv"
COLUMNS = ("file", "mask", "source", "patient", "label", "sequence", "plane", "level")
# What the study's figures are counted on; all other sources were added to it.
STUDY = ("figshare", "br35h", "kermany")
BRAIN = ("lgg", "brats", "fets", "hisub25", "alzheimer", "ms_")
SKULL_STRIPPED = ("brats", "fets", "alzheimer")
RETINA = ("oct_duke",)
UNTYPED = "tumour"
TRAIN_ONLY = ("brats", "fets")
TEST_BELOW, VALIDATION_BELOW = 0.15, 0.27  # of a patient's hash, from 0 to 1
_BRAIN_LABELS = {UNTYPED: "glioma", "no_tumour": "no_tumor"}
_SEQUENCES = ("flair", "t1", "t1post", "t2")


def in_study(record: Record) -> bool:
    """Say whether the study's figures count a record: it is of one of the study's sources, or of no known one."""
    return record.source is None or record.source in STUDY


def indexed(root: Path, *, sources: tuple[str, ...] = (), labels: Mapping[str, str] | None = None) -> list[Record]:
    """Read the images that `index.csv` lists; ids are the files' names in it.

    The group is the patient, after the cohort's name because cohorts number their patients alike (the cohort is the
    source without a sequence at its end: `ms_baghdad_t1` and `ms_baghdad_flair` hold the same patients). An image
    whose patient is unknown is a group of its own.

    Args:
        root: folder that holds `index.csv`.
        sources: beginnings of the names of the sources that are read; all where there are none.
        labels: class names by the index's labels, where they differ. An image labelled `tumour` is not `typed`.

    Raises:
        DatasetError: no index, a column or a file missing, a level that is no number from 0 to 1, an id twice, or no
            image left.
    """
    path = root / INDEX
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DatasetError(f"{path}: no column {', '.join(missing)}")
        rows = [row for row in reader if not sources or row["source"].startswith(sources)]
    if not rows:
        raise DatasetError(f"{path}: no image of the sources asked for ({', '.join(sources) or 'any'})")
    records = [_record(root, row, labels or {}) for row in rows]
    if len({record.id for record in records}) < len(records):
        raise DatasetError(f"{path}: a file is listed twice")
    return records


def brain_sources(root: Path) -> list[Record]:
    """Read brain slices: `brain_mri/` as `brain_folders` reads it, and the brain sources of `multi/`.

    Ids of `brain_mri/` stay what they are with `brain_folders`, so that a split of it holds here too; ids of `multi/`
    begin with `multi/`. A tumour of `multi/` counts as a glioma and is not typed.
    """
    known = [
        replace(record, source="br35h", weighting="mixed")
        if record.label == "no_tumor"
        else replace(record, source="figshare", weighting="T1 post", skull_stripped=False)
        for record in brain_folders(root / "brain_mri")
    ]
    return known + _beside(indexed(root / "multi", sources=BRAIN, labels=_BRAIN_LABELS))


def oct_sources(root: Path) -> list[Record]:
    """Read OCT B-scans: `retinal_oct/` as `kermany` reads it, and Duke's patients with macular oedema of `multi/`.

    Ids of `retinal_oct/` stay what they are with `kermany`; ids of `multi/` begin with `multi/`. Of Duke's scans only
    those are read whose mask shows fluid: the others lie at the edge of a volume, and nobody says what they show.
    """
    known = [replace(record, source="kermany", weighting="OCT Spectralis") for record in kermany(root / "retinal_oct")]
    duke = indexed(root / "multi", sources=RETINA)
    return known + _beside([record for record in duke if _outlined(record.load_mask)])


def extend_split(records: Sequence[Record], base: Split, placed: Mapping[str, Part] | None = None) -> Split:
    """Extend a split of some of the records to all: its parts stay, and the others are dealt by patient.

    A patient's part follows from the patient's own number alone (the id of the image where that is unknown), by a
    hash, so that it stays when images or patients join. Sources of `TRAIN_ONLY` go to the training part: they are small
    and may share patients.

    Args:
        records: the dataset, which holds every id of `base`.
        base: split of a part of it; its shares and its seed are stated in the result.
        placed: part by patient's number, where it must not be left to the hash.

    Raises:
        DatasetError: the dataset lacks an id of `base`, or a patient of `placed`.
    """
    kept = {name for part in PARTS for name in getattr(base, part)} | set(base.excluded)
    lost = sorted(kept - {record.id for record in records})
    if lost:
        raise DatasetError(f"{len(lost)} images of the split are not in the dataset, first: {lost[0]}")
    others = [record for record in records if record.id not in kept]
    strangers = sorted(set(placed or {}) - {_patient(record) for record in others})
    if strangers:
        raise DatasetError(f"no patient {', '.join(strangers)} in the images that the split does not name")
    dealt: dict[Part, list[str]] = {part: [] for part in PARTS}
    for record in others:
        dealt[(placed or {}).get(_patient(record), _dealt(record))].append(record.id)
    return base.model_copy(update={part: (*getattr(base, part), *ids) for part, ids in dealt.items()})


def _dealt(record: Record) -> Part:
    if record.source is not None and any(name in record.source for name in TRAIN_ONLY):
        return "train"
    place = int(hashlib.sha256(_patient(record).encode()).hexdigest()[:8], 16) / 2**32
    return "test" if place < TEST_BELOW else "validation" if place < VALIDATION_BELOW else "train"


def _patient(record: Record) -> str:
    """The patient's own number, or the id where it is unknown."""
    return record.id if record.group == record.id else record.group.partition("/")[2]


def _beside(records: list[Record]) -> list[Record]:
    """Put `multi/` before the ids, and before the groups that are ids."""
    return [replace(r, id=f"multi/{r.id}", group=f"multi/{r.id}" if r.group == r.id else r.group) for r in records]


def _outlined(load_mask: Callable[[], Grey8] | None) -> bool:
    return load_mask is not None and bool((load_mask() > 0).any())


def _record(root: Path, row: Mapping[str, str], labels: Mapping[str, str]) -> Record:
    file, source = root / row["file"], row["source"]
    mask = root / row["mask"] if row["mask"] else None
    for path in (file, mask):
        if path is not None and not path.is_file():
            raise DatasetError(f"{path} is missing; the index lists it")
    return Record(
        id=row["file"],
        label=labels.get(row["label"], row["label"]),
        group=f"{_cohort(source)}/{row['patient']}" if row["patient"] else row["file"],
        load_image=partial(read_grey, file),
        load_mask=partial(read_mask, mask) if mask else None,
        picture=file,
        source=source,
        weighting=row["sequence"] or None,
        plane=row["plane"] or None,
        level=_level(row),
        skull_stripped=source.startswith(SKULL_STRIPPED) if source.startswith(BRAIN) else None,
        typed=row["label"] != UNTYPED,
    )


def _cohort(source: str) -> str:
    stem, _, last = source.rpartition("_")
    return stem if stem and last in _SEQUENCES else source


def _level(row: Mapping[str, str]) -> float | None:
    if not row["level"]:
        return None
    try:
        level = float(row["level"])
    except ValueError as error:
        raise DatasetError(f"{row['file']}: level {row['level']!r} is no number") from error
    if not 0 <= level <= 1:
        raise DatasetError(f"{row['file']}: level {level} is not between 0 and 1")
    return level
