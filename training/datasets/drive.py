"""DRIVE: 40 colour fundus photographs with outlined vessels.

Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE Trans. Med. Imaging 23(4), 2004.
Layout: `training/` and `test/` (or `testing/`), each with `images/NN_*.tif`, `1st_manual/NN_manual1.gif` (vessels,
first observer; absent from the test half of recent copies) and `mask/NN_*_mask.gif` (field of view).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from training.datasets.pictures import read_green, read_outline
from training.datasets.record import DatasetError, Record

HALVES = ("training", "test", "testing")


def drive(root: Path, *, label: str = "DRIVE", mask: Literal["vessels", "field_of_view"] = "vessels") -> list[Record]:
    """Read both halves; images are the green channel, and each image is a group of its own.

    Args:
        root: folder with the two halves.
        label: every record's label; the dataset names no diagnoses.
        mask: what a record's mask is: the first observer's vessels, or the camera's field of view.

    Raises:
        DatasetError: no photograph found, an unknown kind of mask, or a file name without a number.
    """
    if mask not in ("vessels", "field_of_view"):
        raise DatasetError(f"no mask {mask!r}; there are vessels and field_of_view")
    files = sorted(path for half in HALVES for path in (root / half / "images").glob("*.tif"))
    if not files:
        raise DatasetError(f"{root}: no photographs in training/images or test/images")
    return [_record(path, root, label, mask) for path in files]


def _record(path: Path, root: Path, label: str, mask: str) -> Record:
    number = path.stem.split("_")[0]
    if not number.isdigit():
        raise DatasetError(f"{path}: the file name does not start with a number")
    half = path.parent.parent
    outline = half / "1st_manual" / f"{number}_manual1.gif" if mask == "vessels" else _field_of_view(half, path)
    return Record(
        id=path.relative_to(root).as_posix(),
        label=label,
        group=f"{half.name}/{number}",
        load_image=partial(read_green, path),
        load_mask=partial(read_outline, outline) if outline.exists() else None,
        picture=path,
    )


def _field_of_view(half: Path, image: Path) -> Path:
    return half / "mask" / f"{image.stem}_mask.gif"
