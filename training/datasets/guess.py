"""Which adapter reads a folder, guessed from the names of its files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from training.datasets.class_folders import KERMANY_PATTERN, NUMBERED_PATTERN, SUFFIXES
from training.datasets.record import DatasetError

_STARE = re.compile(r"im\d{4}\.(ah\.|vk\.)?ppm(\.gz)?")


def guess_adapter(root: Path) -> str:
    """Name of the adapter whose layout the folder has.

    Raises:
        DatasetError: `root` is not a folder, or has none of the layouts.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    files = [
        PurePosixPath(Path(folder, name).relative_to(root).as_posix())
        for folder, _, names in os.walk(root)
        for name in names
    ]
    for adapter, fits in _LAYOUTS:
        if fits(files):
            return adapter
    raise DatasetError(f"{root}: cannot tell what dataset this is; name its adapter with --adapter")


Fits = Callable[[list[PurePosixPath]], bool]


def _some_name(pattern: str) -> Fits:
    compiled = re.compile(pattern)
    return lambda files: any(compiled.fullmatch(file.name) for file in files)


def _drive(files: list[PurePosixPath]) -> bool:
    return any(file.suffix == ".tif" and file.parts[-3:-1] == ("training", "images") for file in files)


def _four_class(files: list[PurePosixPath]) -> bool:
    return any(file.parts[0] in ("Training", "Testing") and file.parent.name == "notumor" for file in files)


def _brain_folders(files: list[PurePosixPath]) -> bool:
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES and len(file.parts) == 3]
    return {"images", "masks"} <= {file.parts[0] for file in pictures}


def _all_stems(pattern: str) -> Fits:
    compiled = re.compile(pattern)

    def fits(files: list[PurePosixPath]) -> bool:
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        return bool(pictures) and all(len(f.parts) > 1 and compiled.fullmatch(f.stem) for f in pictures)

    return fits


def _indexed(files: list[PurePosixPath]) -> bool:
    return PurePosixPath("index.csv") in files


_LAYOUTS: tuple[tuple[str, Fits], ...] = (
    ("indexed", _indexed),
    ("figshare", _some_name(r"\d+\.mat")),
    ("brats", _some_name(r".+_seg\.nii(\.gz)?")),
    ("stare", _some_name(_STARE.pattern)),
    ("drive", _drive),
    ("four_class", _four_class),
    ("brain_folders", _brain_folders),
    ("kermany", _all_stems(KERMANY_PATTERN)),
    ("class_folders", _all_stems(NUMBERED_PATTERN)),
)
