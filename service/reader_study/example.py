"""A folder of cases to try a study with: the MNI152 slice, turned and moved, some with a tumour drawn into it.

They are drawings, no patients: good for learning how a study runs, and for nothing else.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from service.types import Grey8

_SLICE = Path(__file__).resolve().parent.parent / "page" / "examples" / "mni152-slice.png"
# Truth, centre (share of width and height), radius (share of width), brightness of rim and core.
_DRAWN: tuple[tuple[str, tuple[float, float], float, tuple[int, int]] | None, ...] = (
    None,
    ("glioma", (0.36, 0.42), 0.085, (235, 70)),
    ("meningioma", (0.75, 0.36), 0.075, (225, 225)),
    ("pituitary", (0.5, 0.52), 0.05, (230, 215)),
    None,
    ("glioma", (0.62, 0.62), 0.1, (240, 60)),
    ("meningioma", (0.27, 0.66), 0.065, (220, 220)),
    None,
    ("glioma", (0.4, 0.6), 0.07, (225, 90)),
    ("meningioma", (0.5, 0.2), 0.07, (230, 230)),
)
_TRAINING = 2  # the first ones


def write_example(folder: Path) -> int:
    """Write the images and `cases.csv`, for the model `brain-mri-resnet50`.

    Args:
        folder: new, or empty.

    Returns:
        How many cases.

    Raises:
        FileExistsError: there is something in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(17, "is not empty", str(folder))
    slice_ = np.asarray(cv2.imread(str(_SLICE), cv2.IMREAD_GRAYSCALE), np.uint8)
    lines = ["file,truth,training"]
    for number, drawn in enumerate(_DRAWN, 1):
        picture = _turned(slice_, number)
        truth = "no_tumor"
        if drawn is not None:
            truth, centre, radius, (rim, core) = drawn
            picture = _with_tumour(picture, centre, radius, rim, core)
        name = f"case-{number:02}.png"
        if not cv2.imwrite(str(folder / name), picture):
            raise RuntimeError("PNG encoding failed")
        lines.append(f"{name},{truth},{'yes' if number <= _TRAINING else 'no'}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return len(_DRAWN)


def _turned(picture: Grey8, number: int) -> Grey8:
    """A little turned, moved and noisy, so that no two cases are the same image."""
    rng = np.random.default_rng(number)
    height, width = picture.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-6, 6)), float(rng.uniform(0.92, 1.0)))
    turn[:, 2] += rng.uniform(-0.02, 0.02, 2) * width
    source = picture[:, ::-1] if number % 2 else picture
    moved = cv2.warpAffine(np.ascontiguousarray(source), turn, (width, height), flags=cv2.INTER_CUBIC)
    noisy = moved + np.where(moved > 8, rng.normal(0, 3, moved.shape), 0)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _with_tumour(picture: Grey8, centre: tuple[float, float], radius: float, rim: int, core: int) -> Grey8:
    height, width = picture.shape
    at, size = (round(centre[0] * width), round(centre[1] * height)), radius * width
    drawn, mask = picture.astype(np.float32), np.zeros(picture.shape, np.float32)
    cv2.ellipse(mask, at, (round(size), round(0.82 * size)), 25, 0, 360, 1.0, -1)
    inner = np.zeros_like(mask)
    cv2.ellipse(inner, at, (round(0.65 * size), round(0.5 * size)), 25, 0, 360, 1.0, -1)
    for shape, value in ((mask, rim), (inner, core)):
        soft = cv2.GaussianBlur(shape, (0, 0), max(1.0, 0.06 * size))
        drawn = drawn * (1 - soft) + value * soft
    return np.clip(drawn, 0, 255).astype(np.uint8)
