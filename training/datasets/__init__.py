"""Dataset adapters, by name. An adapter is a function from a folder to records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.datasets.class_folders import KERMANY_PATTERN, class_folders
from training.datasets.record import DatasetError, Record


def kermany(root: Path) -> list[Record]:
    """Kermany's OCT images: `<CLASS>/<CLASS>-<patient>-<n>.jpeg`, at any depth."""
    return class_folders(root, pattern=KERMANY_PATTERN)


def brain_folders(root: Path) -> list[Record]:
    """Brain MRI slices in `images/<class>/<id>.jpg` with tumour outlines in `masks/<class>/<id>.png`."""
    return class_folders(root / "images", masks=root / "masks", single=("no_tumor",))


ADAPTERS: dict[str, Callable[..., list[Record]]] = {
    "class_folders": class_folders,
    "kermany": kermany,
    "brain_folders": brain_folders,
}


def read_dataset(adapter: str, root: Path, **options: object) -> list[Record]:
    """Records of the dataset below `root`.

    Raises:
        DatasetError: no such adapter or folder, or the folder is not what the adapter expects.
    """
    if adapter not in ADAPTERS:
        raise DatasetError(f"no adapter {adapter!r}; there are {', '.join(sorted(ADAPTERS))}")
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    return ADAPTERS[adapter](root, **options)
