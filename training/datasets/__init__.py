"""Dataset adapters, by name. An adapter is a function from a folder to records."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from training.datasets.class_folders import KERMANY_PATTERN, class_folders
from training.datasets.record import DatasetError, Record


def kermany(root: Path) -> list[Record]:
    """Kermany's OCT images: `<CLASS>/<CLASS>-<patient>-<n>.jpeg`, at any depth."""
    return class_folders(root, pattern=KERMANY_PATTERN)


def brain_folders(root: Path) -> list[Record]:
    """Brain MRI slices in `images/<class>/<id>.jpg` with tumour outlines in `masks/<class>/<id>.png`."""
    return class_folders(root / "images", masks=root / "masks", single=("no_tumor",))


# Where each adapter is. A module is imported when its adapter is asked for: some need a file format's library.
ADAPTERS: dict[str, str] = {
    "brain_folders": "training.datasets:brain_folders",
    "brain_sources": "training.datasets.sources:brain_sources",
    "brats": "training.datasets.brats:brats",
    "class_folders": "training.datasets.class_folders:class_folders",
    "drive": "training.datasets.drive:drive",
    "figshare": "training.datasets.figshare:figshare",
    "four_class": "training.datasets.four_class:four_class",
    "indexed": "training.datasets.sources:indexed",
    "kermany": "training.datasets:kermany",
    "oct_sources": "training.datasets.sources:oct_sources",
    "stare": "training.datasets.stare:stare",
}


def load_adapter(name: str) -> Callable[..., list[Record]]:
    """The adapter of that name.

    Raises:
        DatasetError: there is none.
    """
    if name not in ADAPTERS:
        raise DatasetError(f"no adapter {name!r}; there are {', '.join(sorted(ADAPTERS))}")
    module, _, function = ADAPTERS[name].partition(":")
    return getattr(import_module(module), function)


def read_dataset(adapter: str, root: Path, **options: object) -> list[Record]:
    """Records of the dataset below `root`.

    Raises:
        DatasetError: no such adapter, option or folder, or the folder is not what the adapter expects.
    """
    read = load_adapter(adapter)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    try:
        inspect.signature(read).bind(root, **options)
    except TypeError as error:
        raise DatasetError(f"adapter {adapter!r}: {error}") from error
    return read(root, **options)
