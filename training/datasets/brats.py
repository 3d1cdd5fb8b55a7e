"""BraTS 2021: MRI volumes of gliomas in four sequences with a segmentation, cut into axial slices.

Baid et al., "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark", arXiv:2107.02314. Layout:
`<subject>/<subject>_{flair,t1,t1ce,t2,seg}.nii.gz`, skull-stripped, 1 mm, background 0. Segmentation: 0 background,
1 necrotic core, 2 oedema, 4 enhancing tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from tqdm import tqdm

from service.types import Float, Grey8
from training.datasets.record import DatasetError, Record

Sequence = Literal["flair", "t1", "t1ce", "t2"]
SEQUENCES: tuple[Sequence, ...] = ("flair", "t1", "t1ce", "t2")
SEGMENTS = (0, 1, 2, 4)
WHOLE_TUMOUR = (1, 2, 4)
_SUFFIXES = (".nii.gz", ".nii")


def brats(
    root: Path,
    *,
    sequence: Sequence = "t1ce",
    step: int = 5,
    tumour_area: float = 100.0,
    brain_area: float = 4000.0,
    tumour: tuple[int, ...] = WHOLE_TUMOUR,
) -> list[Record]:
    """Cut every subject's volume into axial slices; the group is the subject.

    A slice is `glioma` where its tumour covers at least `tumour_area`, `no_tumor` where it holds none.
    Slices between the two, and slices with little brain, are left out. The volumes are read once here to find the
    slices' labels, one subject at a time; a record asked for its pixels opens its file again and reads one slice.

    Args:
        root: folder that holds the subjects' folders, at any depth.
        sequence: which of the four sequences the images are.
        step: distance between the slices taken, in slices; neighbours differ little.
        tumour_area: least area of tumour that makes a slice `glioma`, in mm2.
        brain_area: least area of brain (non-zero voxels of the sequence), in mm2.
        tumour: segments that count as tumour; (1, 4) is the tumour core without oedema.

    Raises:
        DatasetError: no segmentation found, a sequence is missing, shapes differ, or an unknown segment.
    """
    if sequence not in SEQUENCES:
        raise DatasetError(f"no sequence {sequence!r} in BraTS; there are {', '.join(SEQUENCES)}")
    if step < 1:
        raise DatasetError(f"step must be at least 1, not {step}")
    segmentations = sorted(path for suffix in _SUFFIXES for path in root.rglob(f"*_seg{suffix}"))
    if not segmentations:
        raise DatasetError(f"{root}: no *_seg.nii.gz below this folder")
    records: list[Record] = []
    for path in tqdm(segmentations, desc="reading volumes", unit="subject", leave=False, disable=None):
        records += _subject(path, sequence, step, tumour_area, brain_area, tuple(tumour))
    return records


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which axis of a volume runs to the patient's right, front and top (`axes`), and whether backwards."""

    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]

    @staticmethod
    def of(volume: Nifti1Image) -> _Layout:
        """Read the layout from the volume's affine (nibabel's canonical axes: right, anterior, superior)."""
        orientation = io_orientation(volume.affine)
        axes = [int(np.flatnonzero(orientation[:, 0] == canonical)[0]) for canonical in range(3)]
        backwards = [bool(orientation[axis, 1] < 0) for axis in axes]
        return _Layout((axes[0], axes[1], axes[2]), (backwards[0], backwards[1], backwards[2]))


def _subject(
    segmentation: Path, sequence: Sequence, step: int, tumour_area: float, brain_area: float, tumour: tuple[int, ...]
) -> list[Record]:
    suffix = ".nii.gz" if segmentation.name.endswith(".nii.gz") else ".nii"
    subject = segmentation.name.removesuffix(f"_seg{suffix}")
    image = segmentation.with_name(f"{subject}_{sequence}{suffix}")
    if not image.exists():
        raise DatasetError(f"{image}: missing")
    segments, volume = _open(segmentation), _open(image)
    if segments.shape != volume.shape:
        raise DatasetError(f"{image}: shape {volume.shape}, but the segmentation's is {segments.shape}")
    tumours = _slice_areas(segments, np.isin(_segments(segmentation, segments), tumour))
    brains = _slice_areas(volume, np.asanyarray(volume.dataobj) != 0)
    records: list[Record] = []
    for index in range(0, len(tumours), step):
        if brains[index] < brain_area or 0 < tumours[index] < tumour_area:
            continue
        records.append(
            Record(
                id=f"{subject}/{sequence}/{index:03d}",
                label="glioma" if tumours[index] > 0 else "no_tumor",
                group=subject,
                load_image=partial(_axial, image, index),
                load_mask=partial(_load_mask, segmentation, index, tumour),
            )
        )
    return records


def _open(path: Path) -> Nifti1Image:
    try:
        volume = nib.load(path)
    except ImageFileError as error:
        raise DatasetError(f"{path}: not a NIfTI file ({error})") from error
    if not isinstance(volume, Nifti1Image) or len(volume.shape) != 3:
        raise DatasetError(f"{path}: not a NIfTI volume of three dimensions")
    return volume


def _segments(path: Path, volume: Nifti1Image) -> NDArray[np.int16]:
    segments = np.rint(np.asanyarray(volume.dataobj)).astype(np.int16)
    strangers = sorted(set(np.unique(segments).tolist()) - set(SEGMENTS))
    if strangers:
        raise DatasetError(f"{path}: segments {strangers}; BraTS 2021 has only {list(SEGMENTS)}")
    return segments


def _slice_areas(volume: Nifti1Image, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area inside, in mm2, of each axial slice from the feet up."""
    layout = _Layout.of(volume)
    right, front, _ = layout.axes
    sides = voxel_sizes(volume.affine)
    areas = inside.sum(axis=(right, front)) * float(sides[right] * sides[front])
    return areas[::-1] if layout.backwards[2] else areas


def _axial(path: Path, index: int) -> Float:
    """Slice `index`, counted from the feet up, as a radiologist sees it: front at the top, the right side left."""
    volume = _open(path)
    layout = _Layout.of(volume)
    right, front, top = layout.axes
    position = volume.shape[top] - 1 - index if layout.backwards[2] else index
    chosen: list[slice | int] = [slice(None)] * 3
    chosen[top] = position
    plane = np.asarray(volume.dataobj[tuple(chosen)], np.float32)
    rows = plane.T if right < front else plane  # rows run to the front, columns to the right
    if not layout.backwards[1]:
        rows = rows[::-1]
    if not layout.backwards[0]:
        rows = rows[:, ::-1]
    return np.ascontiguousarray(rows)


def _load_mask(path: Path, index: int, tumour: tuple[int, ...]) -> Grey8:
    return np.isin(np.rint(_axial(path, index)), tumour).astype(np.uint8)
