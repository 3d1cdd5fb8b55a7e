"""Images to post, drawn here: nothing needs downloading, and no patient's image is used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from export.golden import phantoms

SIDE = 512  # of the figshare slices; decoding and cropping are part of what is measured


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart request."""

    name: str
    content: bytes

    def part(self) -> tuple[str, tuple[str, bytes, str]]:
        """As `requests` takes it, under the field name of the API."""
        return ("images", (self.name, self.content, "image/png"))


@cache
def uploads() -> dict[str, tuple[Upload, ...]]:
    """PNG files by DICOM modality: drawn heads for MR, drawn layers for OPT, eight of each."""
    drawn: dict[str, list[Upload]] = {"MR": [], "OPT": []}
    for seed in range(4):
        for number, image in enumerate(phantoms(SIDE, seed)[..., 0]):
            modality = ("MR", "OPT")[number % 2]
            drawn[modality].append(Upload(f"{modality}-{seed}-{number}.png", _png(image)))
    return {modality: tuple(files) for modality, files in drawn.items()}


def _png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
