"""Samples of PNG and JPEG as browsers show them: transparency on black, PNG's gamma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.images.png import Head

_LINEAR_END = 0.0031308  # of sRGB (IEC 61966-2-1)


def shown(image: Image.Image, head: Head | None) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Bring an image to the samples that are shown.

    What is transparent in part is mixed with black, after its gamma. A transparent grey or colour (tRNS, ISO/IEC 15948
    11.3.2.1) is compared as it is stored, in the upper 8 bits of each sample for RGB of 16 bits.

    Args:
        image: loaded.
        head: of its PNG file; None for JPEG.

    Returns:
        Grey `[H, W]`, uint8 or uint16, or RGB `[H, W, 3]` uint8, over the whole range of the type.
    """
    curve = None if head is None or head.gamma is None else _curve(head.gamma)
    key: object = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey
        return _keyed(np.asarray(image).astype(np.uint16), key, curve)
    depth = 8 if head is None else head.depth
    if image.mode == "1":
        return _keyed(np.asarray(image.convert("L"), np.uint8), key, curve)
    if image.mode == "L":
        largest = (1 << depth) - 1  # Pillow brings samples of 2 and 4 bits to 8, but not the key
        grey = (key & largest) * (255 // largest) if isinstance(key, int) else None
        return _keyed(np.asarray(image, np.uint8), grey, curve)
    if image.mode == "RGB":
        colour = tuple((int(part) >> (depth - 8)) & 255 for part in key) if isinstance(key, tuple) else None
        return _keyed(np.asarray(image, np.uint8), colour, curve)
    if not image.has_transparency_data:
        return _through(np.asarray(image.convert("RGB"), np.uint8), curve)
    rgba = np.asarray(image.convert("RGBA"), np.uint8)
    whole = Image.fromarray(np.dstack([_through(rgba[..., :3], curve), rgba[..., 3]]))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", whole.size, (0, 0, 0, 255)), whole).convert("RGB"))


def _keyed(samples: NDArray[Any], key: object, curve: NDArray[np.float64] | None) -> NDArray[Any]:
    """Make the samples that equal the key black."""
    seen = _through(samples, curve)
    if key is None:
        return seen
    hidden = samples == np.asarray(key)
    return np.where(hidden.all(axis=2, keepdims=True) if samples.ndim == 3 else hidden, 0, seen).astype(samples.dtype)


def _through(samples: NDArray[Any], curve: NDArray[np.float64] | None) -> NDArray[Any]:
    if curve is None:
        return samples
    largest = np.iinfo(samples.dtype).max
    step = (len(curve) - 1) // largest
    return np.rint(curve[::step] * largest).astype(samples.dtype)[samples]


def _curve(gamma: float) -> NDArray[np.float64]:
    """Map samples of 16 bits, encoded with this exponent, to sRGB, 0..1 (ISO/IEC 15948 13.13)."""
    light = np.linspace(0, 1, 1 << 16) ** (1 / gamma)
    return np.where(light <= _LINEAR_END, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
