"""What every image format shares: limits, and colour to grey."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from service.errors import SlowImage, TooManyImages, TooManyPixels
from service.types import Float, Grey8

MAX_FRAME_PIXELS = 2**26  # 64 Mi pixels: 8192 x 8192
MAX_SIDE = 2**14  # a model's input is made of the square around it, which has four times as many pixels
MAX_ASPECT_RATIO = 64  # of a frame, either way
MAX_FRAMES = 512
MAX_SCANS = 64  # of a JPEG: encoders write 10
MAX_FILE_PIXELS = 2**27  # all frames together: 512 frames of 512 x 512

_FLAT = "every pixel has the same value: there is nothing to see; do not rely on the prediction"
_filter_lock = threading.Lock()


class Budget:
    """What all files of one request may decode to together, in any order and from any threads.

    Args:
        images: most of them.
        pixels: most of all images.
        hold: told the most bytes that each file's pixels take, where they stay in memory until the answer; what it
            raises refuses the request. None: an image's pixels are given up as soon as the model's input is made.
    """

    def __init__(self, images: int, pixels: int, hold: Callable[[int], None] | None = None) -> None:
        self.keeps = hold is not None
        self._hold, self._lock = hold, threading.Lock()
        self._left_images, self._left_pixels = images, pixels
        self._refusal = f"at most {images} images with {pixels} pixels together at once"

    def take(self, images: int, pixels: int) -> None:
        """Ask before a file is decoded.

        Raises:
            TooManyImages: the files have more together.
        """
        with self._lock:
            self._left_images -= images
            self._left_pixels -= pixels
            if self._left_images < 0 or self._left_pixels < 0:
                raise TooManyImages(self._refusal)
        if self._hold is not None:
            self._hold(4 * pixels)  # as float32


def check_size(width: int, height: int, frames: int = 1) -> None:
    """Refuse an image before memory is spent on it.

    Args:
        width: columns of a frame.
        height: rows of a frame.
        frames: number of frames in the file.

    Raises:
        TooManyPixels: a frame, the square around it, the number of frames or all frames together exceed the limits.
    """
    if width * height > MAX_FRAME_PIXELS:
        raise TooManyPixels(f"a frame has more than {MAX_FRAME_PIXELS} pixels")
    longer, shorter = max(width, height), min(width, height)
    if longer > MAX_SIDE or longer > MAX_ASPECT_RATIO * shorter:
        raise TooManyPixels(f"a frame has a side of more than {MAX_SIDE} pixels, or {MAX_ASPECT_RATIO} times the other")
    if frames > MAX_FRAMES:
        raise TooManyPixels(f"the file has more than {MAX_FRAMES} frames")
    if width * height * frames > MAX_FILE_PIXELS:
        raise TooManyPixels(f"the frames of the file have more than {MAX_FILE_PIXELS} pixels together")


def check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG of many scans: each costs the decoder a walk over all blocks, and can be 33 bytes of the file.

    Args:
        jpeg: the whole image; every start of scan (T.81 B.1.1.3) in it counts, a thumbnail's, too.

    Raises:
        SlowImage: more than `MAX_SCANS`.
    """
    if jpeg.count(b"\xff\xda") > MAX_SCANS:
        raise SlowImage(f"a JPEG may have at most {MAX_SCANS} scans")


def grey_of(rgb: Grey8) -> tuple[Grey8, float]:
    """Luma of a colour image, and how colourful it is.

    Args:
        rgb: uint8 `[H, W, 3]`.

    Returns:
        Luma (ITU-R BT.601) uint8 `[H, W]`, and the mean of max - min over the channels as a share of 255, 0..1.
    """
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    return np.asarray(Image.fromarray(rgb).convert("L"), np.uint8), float(spread.mean()) / 255.0


def flat_note(pixels: Grey8 | Float) -> tuple[str, ...]:
    """What a reader must know of an image without any contrast: a model names a class of it all the same.

    Args:
        pixels: uint8 or float32 `[H, W]`, of any range.

    Returns:
        One warning; none where two pixels differ.
    """
    return (_FLAT,) if pixels.min() == pixels.max() else ()


def silence(package: str) -> None:
    """Drop the warnings that a package raises from inside itself: their texts can quote a file's values.

    Filters are global to the process, so a context manager would not be safe in threads; this adds one
    filter, once.
    """
    pattern = rf"{package}(\.|$)"
    with _filter_lock:
        if not any(getattr(entry[3], "pattern", None) == pattern for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=pattern)
