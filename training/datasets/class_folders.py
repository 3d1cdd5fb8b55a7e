"""Folders named after classes: Kermany's OCT layout, Kaggle's four-class brain MRI layout, and ours with masks.

Kermany et al., Mendeley Data rscbjbr9sj: `CNV/CNV-1016042-1.jpeg`, the middle number is the patient.
Nickparvar, Kaggle brain-tumor-mri-dataset: `Training/glioma/Tr-gl_0010.jpg`, patients unknown.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from service.types import Grey8
from training.datasets.record import DatasetError, Image, Record

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
KERMANY_PATTERN = r"(?P<label>[A-Z]+)-(?P<patient>\d+)-(?P<sequence>\d+)"
NUMBERED_PATTERN = r"\D*(?P<sequence>\d+)"


def class_folders(
    root: Path,
    *,
    pattern: str = NUMBERED_PATTERN,
    masks: Path | None = None,
    block: int = 40,
    single: tuple[str, ...] = (),
    rename: dict[str, str] | None = None,
) -> list[Record]:
    """Read `root/**/<class>/<file>`.

    Args:
        root: folder that holds the class folders, at any depth (so that Kaggle's Training and Testing join).
        pattern: regular expression that file stems match in full. With a group `patient` the patient is known;
            else the group `sequence` (a number) orders the slices, and blocks of consecutive numbers are formed.
        masks: folder with `<class>/<stem>.png`, non-zero inside the lesion.
        block: how many consecutive ids make a block.
        single: classes whose images are no neighbours of each other; each image is a block of its own.
        rename: class names by folder name, where they differ.

    Raises:
        DatasetError: no image found, or a file name that does not match the pattern.
    """
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DatasetError(f"{root}: no image files below this folder")
    compiled = re.compile(pattern)
    return [_record(path, root, compiled, masks, block, single, rename or {}) for path in files]


def _record(
    path: Path,
    root: Path,
    pattern: re.Pattern[str],
    masks: Path | None,
    block: int,
    single: tuple[str, ...],
    rename: dict[str, str],
) -> Record:
    match = pattern.fullmatch(path.stem)
    if match is None:
        raise DatasetError(f"{path}: the file name does not match the pattern {pattern.pattern!r}")
    label = rename.get(path.parent.name, path.parent.name)
    named = match.groupdict()
    sequence = None
    if "patient" in named:
        group = named["patient"]
    elif label in single:
        group = path.relative_to(root).as_posix()
    else:
        sequence = int(named["sequence"])
        group = f"{path.parent.relative_to(root).as_posix()}/block-{sequence // block:04d}"
    mask = masks / path.parent.name / f"{path.stem}.png" if masks else None
    return Record(
        id=path.relative_to(root).as_posix(),
        label=label,
        group=group,
        load_image=partial(read_grey, path),
        load_mask=partial(read_mask, mask) if mask and mask.exists() else None,
        sequence=sequence,
        picture=path,
    )


def read_grey(path: Path) -> Image:
    """Read an image file as grey uint8 `[H, W]` (16-bit files as float32)."""
    with PillowImage.open(path) as image:
        if image.mode.startswith("I"):
            return np.asarray(image, np.float32)
        return np.asarray(image.convert("L"), np.uint8)


def read_mask(path: Path) -> Grey8:
    """Read a mask file as uint8 `[H, W]`, non-zero inside."""
    with PillowImage.open(path) as image:
        return np.asarray(image.convert("L"), np.uint8)
