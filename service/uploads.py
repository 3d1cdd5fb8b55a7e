"""Files as they were sent, and the rows of an answer that they become: read, or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.composing import Read
from service.errors import UnreadableImage
from service.images.reading import read_frames
from service.observability import ERRORS
from service.preprocessing import prepare
from service.schemas import ImageFailure, Problem
from service.types import PreprocessingSpec


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent."""

    name: str
    content: bytes


def read_files(numbered: Sequence[tuple[int, Upload]], spec: PreprocessingSpec) -> list[Read | ImageFailure]:
    """All frames of all files, decoded and prepared, in order; what is wrong with a file is its only row.

    Args:
        numbered: files with their numbers in the request.
        spec: of the model that is asked.
    """
    return [row for number, upload in numbered for row in _read(number, upload, spec)]


def _read(number: int, upload: Upload, spec: PreprocessingSpec) -> list[Read | ImageFailure]:
    try:
        frames = read_frames(upload.content, upload.name)
    except UnreadableImage as error:
        ERRORS.labels(error.kind).inc()
        return [ImageFailure(name=upload.name, error=Problem.of(error))]
    return [Read(number, frame, prepare(frame, spec)) for frame in frames]
