"""Picture files that Pillow reads, plain or gzipped: their pixels, and whether they hold colour."""

from __future__ import annotations

import gzip
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from service.types import Grey8
from training.datasets.record import DatasetError

_COLOURLESS = ("1", "L", "LA", "I", "I;16", "F")
_PREVIEW = (128, 128)  # colour is judged on a small copy, which JPEG decodes for a fraction of the cost


@contextmanager
def open_picture(path: Path) -> Generator[PillowImage.Image]:
    """Open a picture file, gzipped where its name ends in `.gz`.

    Raises:
        DatasetError: the file is not a picture.
        FileNotFoundError: there is no such file.
    """
    content = path.read_bytes()
    try:
        image = PillowImage.open(BytesIO(gzip.decompress(content) if path.suffix == ".gz" else content))
    except (UnidentifiedImageError, gzip.BadGzipFile, EOFError) as error:
        raise DatasetError(f"{path}: not a picture that can be read ({error})") from error
    with image:
        yield image


def read_green(path: Path) -> Grey8:
    """Read the green channel of a colour photograph, or a grey picture as it is: uint8 `[H, W]`.

    Blood absorbs green light and the lens of the eye passes it, so that vessels and haemorrhages of a fundus
    photograph stand out most there (Staal et al., IEEE Trans. Med. Imaging 23(4), 2004).
    """
    with open_picture(path) as image:
        if image.mode in _COLOURLESS:
            return np.asarray(image.convert("L"), np.uint8)
        return np.asarray(image.convert("RGB").getchannel("G"), np.uint8)


def read_outline(path: Path) -> Grey8:
    """Read a mask picture of any mode, plain or gzipped: uint8 `[H, W]`, non-zero inside."""
    with open_picture(path) as image:
        return np.asarray(image.convert("L"), np.uint8)


def colour_spread(path: Path) -> float:
    """Mean spread between the colour channels, 0..1: 0 for a grey picture, however it is stored."""
    with open_picture(path) as image:
        if image.mode in _COLOURLESS:
            return 0.0
        image.draft("RGB", _PREVIEW)
        image.thumbnail(_PREVIEW)
        pixels = np.asarray(image.convert("RGB"), np.float32)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean() / 255)
