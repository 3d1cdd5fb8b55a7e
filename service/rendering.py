"""From an attribution to a picture; the only place where saliency is scaled and coloured."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter
from service.types import Attribution, Float, Frame, Grey8, Picture, Region

NOTICE = "Research use only. Evidence, not a lesion outline."
_FOOTER = 44
_OPACITY = 0.6
_LEVELS = 1024  # of evidence that a picture tells apart

_MAX_WEBP = 16_383  # pixels of a side; JPEG has 65,535, more than any frame that is read
_QUALITY = {"webp": [cv2.IMWRITE_WEBP_QUALITY, 90], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, 90], "png": []}


def overlay_file(frame: Frame, region: Region, attribution: Attribution, picture: Picture = "png") -> bytes:
    """The frame with the positive evidence in colour over it, as the bytes of a picture; see `overlay`.

    Args:
        frame: the source.
        region: the rectangle of the frame that the map covers.
        attribution: values float32 `[h, w]`.
        picture: PNG loses nothing; WebP and JPEG do (quality 90), and are smaller.

    Raises:
        InvalidParameter: larger than a WebP can be.
    """
    drawn = overlay(frame, region, attribution)
    if picture == "webp" and max(drawn.shape) > _MAX_WEBP:
        raise InvalidParameter(f"picture: a WebP has at most {_MAX_WEBP} pixels a side; ask for png or jpeg")
    done, content = cv2.imencode(f".{picture}", drawn, _QUALITY[picture])
    if not done:
        raise RuntimeError(f"{picture} encoding failed")
    return content.tobytes()


def overlay(frame: Frame, region: Region, attribution: Attribution, peak: float | None = None) -> NDArray[np.uint8]:
    """The frame with the positive evidence in colour over it.

    The brightest colour of inferno, which is perceptually uniform, stands for `peak`; there is no colour where the
    evidence is not positive. The footer holds a colour bar with the values, the method, the target and the notice; it
    names neither file nor patient.

    Args:
        frame: the source.
        region: the rectangle of the frame that the map covers.
        attribution: values float32 `[h, w]`.
        peak: positive; None for the largest positive value of this map.

    Returns:
        uint8 `[H', W', 3]`, blue first; narrow frames are enlarged so that the footer can be read.
    """
    grey = display_grey(frame)
    positive = np.maximum(on_frame(attribution.values, region, grey.shape), 0)
    peak = float(positive.max()) if peak is None else peak
    if peak > 0:
        strength = np.minimum(positive / np.float32(peak), np.float32(1))
        level = (np.sqrt(strength, out=strength) * (_LEVELS - 1)).astype(np.intp)
        colours = np.take(_blends(), level * 256 + grey).view(np.uint8).reshape(*grey.shape, 4)
        blended = np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGRA2BGR), np.uint8)
    else:
        blended = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    return _with_footer(blended, attribution, peak)


@cache
def _blends() -> NDArray[np.uint32]:
    """uint32 `[_LEVELS * 256]`, blue first, a byte each: of each level of the evidence's root over 256 greys."""
    root = np.linspace(0, 1, _LEVELS)
    heat = cv2.applyColorMap((root**2 * 255).astype(np.uint8)[:, np.newaxis], cv2.COLORMAP_INFERNO)
    opacity = _OPACITY * root[:, np.newaxis, np.newaxis]
    colours = np.zeros((_LEVELS, 256, 4), np.uint8)
    colours[..., :3] = np.arange(256)[:, np.newaxis] * (1 - opacity) + heat * opacity
    return colours.view(np.uint32).ravel()


def on_frame(values: Float, region: Region, shape: tuple[int, ...]) -> Float:
    """Bring a map `[h, w]` onto the pixels of its frame, bilinear between cell centres, 0 outside the region.

    Args:
        values: float32 `[h, w]`, cells of the region from its upper left corner.
        region: the rectangle, in frame pixels, that the cells cover.
        shape: `(H, W)` of the frame.

    Returns:
        float32 `[H, W]`.
    """
    h, w = values.shape
    height, width = shape[:2]
    xs = ((np.arange(width, dtype=np.float32) + 0.5 - region.x) / region.width) * w - 0.5
    ys = ((np.arange(height, dtype=np.float32) + 0.5 - region.y) / region.height) * h - 0.5
    inside = ((xs >= -0.5) & (xs <= w - 0.5))[np.newaxis] & ((ys >= -0.5) & (ys <= h - 0.5))[:, np.newaxis]
    grid_x, grid_y = np.meshgrid(np.clip(xs, 0, w - 1), np.clip(ys, 0, h - 1))
    mapped = cv2.remap(values.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR)
    return np.where(inside, mapped, np.float32(0))


def display_grey(frame: Frame) -> Grey8:
    """Render the frame for people.

    Returns:
        uint8 `[H, W]`: with its VOI window or LUT; without one, 8-bit pixels as they are and others from their
        percentiles 0.5 to 99.5.
    """
    low, high = window(frame)
    shown = frame.shown()
    if shown.dtype == np.uint8:
        return shown.astype(np.uint8, copy=False)
    return np.clip((shown - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)


def window(frame: Frame) -> tuple[float, float]:
    """Choose the display values that are black and white at first.

    Returns:
        0 and 255 of 8-bit pixels and of those with a VOI window or LUT; else the percentiles 0.5 and 99.5 of what is no
        padding.
    """
    if frame.display is not None or frame.pixels.dtype == np.uint8:
        return 0.0, 255.0
    pixels = frame.pixels if frame.padding is None else frame.pixels[~frame.padding]
    low, high = (float(value) for value in np.percentile(np.nan_to_num(pixels), (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def _with_footer(picture: NDArray[np.uint8], attribution: Attribution, peak: float) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = max(1.0, 360 / width)
    if scale > 1:
        picture = np.asarray(
            cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_CUBIC), np.uint8
        )
        height, width = picture.shape[:2]
    footer = np.zeros((_FOOTER, width, 3), np.uint8)
    bar = cv2.applyColorMap(np.linspace(0, 255, 96, dtype=np.uint8)[np.newaxis].repeat(8, axis=0), cv2.COLORMAP_INFERNO)
    footer[8:16, 8:104] = bar
    values = f"0 to {peak:.3g}" if peak > 0 else "no positive evidence"
    _write(footer, values, (112, 16))
    target = attribution.target
    against = f" vs {target.against_name}" if target.against_name else ""
    _write(footer, f"{attribution.method}, {target.name}{against}", (max(260, width // 2), 16))
    _write(footer, NOTICE, (8, 35))
    return np.vstack([picture, footer])


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (230, 230, 230), 1, cv2.LINE_AA)
