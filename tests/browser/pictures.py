"""Pictures that are nobody's."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.browser.harness import ROOT

SLICE = ROOT / "docs" / "images" / "mni152-slice.png"


def drawn() -> np.ndarray:
    """The template's slice, darker, with a bright disc, which the U-Net takes for a tumour: uint8 [233, 197]."""
    head = np.asarray(Image.open(SLICE)).astype(float) * 0.6
    rows, columns = np.mgrid[: head.shape[0], : head.shape[1]]
    inside = np.clip((20 - np.hypot(rows - 93, columns - 122)) / 2, 0, 1)
    return (head * (1 - inside) + 245 * inside).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
