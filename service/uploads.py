"""Files as they were sent, and the rows of an answer that they become: read, or failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.composing import Read
from service.errors import UnreadableImage
from service.images.pixels import Budget
from service.images.reading import read_frames
from service.observability import ERRORS
from service.preprocessing import prepare
from service.schemas import ImageFailure, Problem
from service.types import Frame, PreprocessingSpec

MAX_IMAGES = 8192  # of one request, with all frames
MAX_PIXELS = 2**30  # of one request: 64 mammograms of 3328 x 4096
MAX_KEPT_PIXELS = 2**28  # of one whose pictures are drawn: 64 images of 2048 x 2048, 1 GiB as float32


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent."""

    name: str
    content: bytes


def budget_of(hold: Callable[[int], None] | None) -> Budget:
    """What the files of one request may decode to; less where their pixels are kept.

    Args:
        hold: see `Budget`.
    """
    return Budget(MAX_IMAGES, MAX_PIXELS if hold is None else MAX_KEPT_PIXELS, hold)


def read_files(
    numbered: Sequence[tuple[int, Upload]], spec: PreprocessingSpec, budget: Budget, *, locked: bool = True
) -> list[Read | ImageFailure]:
    """All frames of all files, decoded and prepared, in order; what is wrong with a file is its only row.

    Args:
        numbered: files with their numbers in the request.
        spec: of the model that is asked.
        budget: of the request. Where it does not keep pixels, those of the frames are black, have the frame's size and
            take no memory.
        locked: see `read_frames`.

    Raises:
        TooManyImages: beyond the budget.
    """
    return [row for number, upload in numbered for row in _read(number, upload, spec, budget, locked=locked)]


def _read(
    number: int, upload: Upload, spec: PreprocessingSpec, budget: Budget, *, locked: bool
) -> list[Read | ImageFailure]:
    try:
        frames = read_frames(upload.content, upload.name, budget, locked=locked)
    except UnreadableImage as error:
        ERRORS.labels(error.kind).inc()
        return [ImageFailure(name=upload.name, error=Problem.of(error))]
    return [Read(number, frame if budget.keeps else _hollow(frame), prepare(frame, spec)) for frame in frames]


def _hollow(frame: Frame) -> Frame:
    """The same without its pixels: one that is black stands for all."""
    return replace(frame, pixels=np.broadcast_to(np.uint8(0), frame.pixels.shape), padding=None, display=None)
