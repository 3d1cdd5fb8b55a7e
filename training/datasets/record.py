"""The one record that every dataset adapter gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.types import Grey8

Image = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image, read only when asked for.

    `id` is unique and stable within its dataset. `group` is the patient, or a block of neighbouring ids
    where patients are unknown: a group never straddles two parts of a split. `sequence` is the position
    among neighbouring slices where only blocks are known (a guard is kept between parts there), else None.
    `load_image` gives grey `[H, W]`, uint8 or float32; `load_mask` uint8 `[H, W]`, non-zero inside the lesion.
    `picture` is the file that the image came from where Pillow can open it (plain or gzipped), else None.

    What is known of where the image comes from, None where it is not: `source` is the name of the data set or cohort,
    `weighting` the MR sequence in words ("T1 post", "FLAIR", "T2", "T1", "mixed"), `plane` how the slice lies,
    `level` its height in the volume (0 bottom, 1 top), `skull_stripped` whether the skull was taken away.
    `typed` is False where all that is known is that there is a finding: `label` then is the class that the image
    counts for, and whether a model names that class must not be judged.
    """

    id: str
    label: str
    group: str
    load_image: Callable[[], Image]
    load_mask: Callable[[], Grey8] | None = None
    sequence: int | None = None
    picture: Path | None = None
    source: str | None = None
    weighting: str | None = None
    plane: str | None = None
    level: float | None = None
    skull_stripped: bool | None = None
    typed: bool = True


class DatasetError(Exception):
    """A dataset is not what its adapter expects, or too small; the message says what is wrong, and of which file."""
