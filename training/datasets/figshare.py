"""Cheng's brain tumour dataset: 3,064 contrast-enhanced T1 slices of 233 patients as MATLAB files.

Cheng et al., "Enhanced Performance of Brain Tumor Classification via Tumor Region Augmentation and Partition",
PLoS ONE 10(10), 2015; figshare 1512427, CC BY 4.0. Each file is MATLAB v7.3, which is HDF5, with one struct `cjdata`:
`label` (1 meningioma, 2 glioma, 3 pituitary), `PID` (patient, character codes), `image` (int16), `tumorMask`,
`tumorBorder`. MATLAB stores columns first and HDF5 rows first, so that every matrix reads transposed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from service.types import Float, Grey8
from training.datasets.record import DatasetError, Record

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}


def figshare(root: Path) -> list[Record]:
    """Read `root/**/<number>.mat`; the group is the patient.

    Only label and patient are read here; pixels are read when a record is asked for them.

    Raises:
        DatasetError: no `.mat` file found, or one that is not of this dataset.
    """
    files = sorted(root.rglob("*.mat"), key=lambda path: (path.parent, len(path.stem), path.stem))
    if not files:
        raise DatasetError(f"{root}: no .mat files below this folder")
    return [_record(path, root) for path in files]


def _record(path: Path, root: Path) -> Record:
    label = int(_matrix(path, "label").item())
    if label not in LABELS:
        raise DatasetError(f"{path}: cjdata/label is {label}, not one of {sorted(LABELS)}")
    return Record(
        id=path.relative_to(root).as_posix(),
        label=LABELS[label],
        group=_text(_matrix(path, "PID")),
        load_image=partial(_image, path),
        load_mask=partial(_mask, path),
    )


def _matrix(path: Path, name: str) -> NDArray[np.generic]:
    """One matrix of the struct as MATLAB shows it.

    Raises:
        DatasetError: the file is not HDF5, or lacks the matrix.
    """
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[f"cjdata/{name}"]).T
    except OSError as error:
        raise DatasetError(f"{path}: not a MATLAB v7.3 file ({error})") from error
    except KeyError as error:
        raise DatasetError(f"{path}: holds no cjdata/{name}") from error


def _text(codes: NDArray[np.generic]) -> str:
    return "".join(chr(int(code)) for code in codes.ravel()).strip()


def _image(path: Path) -> Float:
    return np.ascontiguousarray(_matrix(path, "image"), np.float32)


def _mask(path: Path) -> Grey8:
    return np.ascontiguousarray(_matrix(path, "tumorMask") != 0, np.uint8)
