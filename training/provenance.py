"""What a measurement was made on: digests of checkpoint and data, versions, machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm import tqdm

from training.datasets.record import Record
from training.processor import processor
from training.report import Machine

PACKAGES = ("radiolucent", "torch", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "torchmetrics")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_digest(records: Sequence[Record]) -> str:
    """SHA-256 over ids, labels and decoded pixels, in the order of the ids; hexadecimal.

    Pixels rather than files, so that every adapter has it; a JPEG decoder that rounds differently changes it.
    """
    total = hashlib.sha256()
    for record in tqdm(sorted(records, key=lambda r: r.id), desc="digest of the data", unit="image", leave=False):
        image = record.load_image()
        head = f"{record.id}\0{record.label}\0{image.dtype}\0{image.shape}\0"
        total.update(head.encode())
        total.update(hashlib.sha256(image.tobytes()).digest())
    return total.hexdigest()


def describe_machine(device: str) -> Machine:
    """This machine, and the versions of the packages that the numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout, or another build of the package
            versions[name] = "not installed as a package"
    return Machine(processor=processor(), device=device, versions=versions)
