"""Kaggle's four-class brain MRI folders: `Training/glioma/Tr-gl_0010.jpg`, `Testing/notumor/Te-no_0010.jpg`.

Nickparvar, Kaggle brain-tumor-mri-dataset: figshare 1512427, SARTAJ and Br35H put together; patients are unknown.
The dataset's own halves share patients, so that both are read as one and split anew.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from training.datasets.class_folders import class_folders
from training.datasets.record import Record

_APART = 1_000_000  # beyond any guard


def four_class(root: Path, *, block: int = 40) -> list[Record]:
    """Read both halves; blocks of consecutive numbers are groups, and `notumor` becomes `no_tumor`.

    Numbers run anew in each half and after each prefix (`Tr-gl_0010`, `Tr-glTr_0010`): such series are kept apart,
    their blocks are different groups and their slices no neighbours. Images of `no_tumor` come from mixed sources
    and are no neighbours of each other.

    Args:
        root: folder with `Training` and `Testing`.
        block: how many consecutive numbers make a group.

    Raises:
        DatasetError: no image found, or a file name without a number.
    """
    records = class_folders(root, block=block, single=("no_tumor",), rename={"notumor": "no_tumor"})
    series = {name: number for number, name in enumerate(sorted({_series(record) for record in records}))}
    return [_apart(record, series, block) for record in records]


def _series(record: Record) -> str:
    path = PurePosixPath(record.id)
    return f"{path.parent}/{re.sub(r'[0-9]+$', '', path.stem)}"


def _apart(record: Record, series: dict[str, int], block: int) -> Record:
    if record.sequence is None:
        return record
    name = _series(record)
    return replace(
        record,
        group=f"{name}block-{record.sequence // block:04d}",
        sequence=series[name] * _APART + record.sequence,
    )
