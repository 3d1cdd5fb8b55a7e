"""How much of the head lies within the crop that a model gets of a single slice?

For every image of some folders, or of the slices that an index lists by source, the head is outlined in another way
than preprocessing finds it: smoothed, a tenth of the range above air, the largest object, holes filled. What counts is
the share of that mask in the model's region.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from service.errors import UnreadableImage
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.types import Float, Frame, PreprocessingSpec

BAR = 0.995
_SMOOTHED = 1 / 256  # standard deviation, of the longer side
_ABOVE_AIR = 0.1  # of the range from percentile 2 to 99
_THIN = 1 / 60  # of the longer side
_SPEC = PreprocessingSpec(field_of_view="head", orientation="patient")


def head_of(pixels: Float) -> NDArray[np.bool_]:
    """Outline the head in an image float32 `[H, W]`."""
    longer = max(pixels.shape)
    smooth = cv2.GaussianBlur(pixels, (0, 0), max(1.0, longer * _SMOOTHED))
    low, high = np.percentile(smooth, (2, 99))
    bright = (smooth > low + _ABOVE_AIR * (high - low)).astype(np.uint8)
    outlines, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(bright), outlines, -1, 1, cv2.FILLED)
    side = max(3, round(longer * _THIN)) | 1
    opened = cv2.morphologyEx(filled, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(opened)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return labels == 1 + areas.argmax() if len(areas) else np.zeros(pixels.shape, np.bool_)


def share_inside(frame: Frame) -> tuple[float, float] | None:
    """Measure one image: share of the head in the region, and side of the region by the longer side of the image."""
    mask = head_of(frame.pixels.astype(np.float32))
    if not mask.any():
        return None
    region = prepare(frame, _SPEC).region
    x, y = max(0, round(region.x)), max(0, round(region.y))
    part = mask[y : max(0, round(region.y + region.height)), x : max(0, round(region.x + region.width))]
    return float(part.sum() / mask.sum()), max(region.width, region.height) / max(frame.pixels.shape)


def sources(data: Path) -> dict[str, list[Path]]:
    """List the images by source: the rows of `index.csv` (columns `file`, `source`), else one folder each."""
    index = data / "index.csv"
    found: dict[str, list[Path]] = {}
    if index.exists():
        with index.open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["source"], []).append(data / row["file"])
        return found
    for path in sorted(path for path in data.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".dcm")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def _frames(paths: list[Path]) -> Iterator[Frame]:
    for path in paths:
        try:
            yield from read_frames(path.read_bytes(), path.name)
        except UnreadableImage as error:
            sys.stderr.write(f"{path.name}: {error.detail}\n")


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("field_of_view", __doc__)
    made.add_argument("data", type=Path, nargs="+", metavar="DATA", help="folders of slices of the head")
    made.add_argument("--skip", nargs="*", default=[], metavar="SOURCE", help="sources, or beginnings of them")
    options = made.parse_args(arguments)
    rows: list[dict[str, Cell]] = []
    for data in options.data:
        for name, paths in sources(data).items():
            if name.startswith(tuple(options.skip)):
                continue
            measured = [share_inside(frame) for frame in tqdm(_frames(paths), desc=name, total=len(paths), leave=False)]
            inside, sides = zip(*[one for one in measured if one is not None], strict=True)
            rows.append(
                {
                    "source": name,
                    "slices": len(inside),
                    "lowest share inside": min(inside),
                    "first percentile": float(np.percentile(inside, 1)),
                    f"slices below {BAR:.1%}": float((np.array(inside) < BAR).mean()),
                    "side of the crop": float(np.mean(sides)),
                }
            )
    where = machine("cpu", 0)
    show("the head within the crop", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
