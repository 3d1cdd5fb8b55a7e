"""Frames for a viewer: as people see them, in 8 or 16 bits."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.errors import TooManyPixels
from service.images.dicom import decode, describe
from service.images.parsing import parse
from service.images.reading import read_frames, sniff
from service.images.tags import readable_header, uid_of
from service.rendering import window
from service.schemas import RESEARCH_NOTICE
from service.series.slices import Slice, slices_of, sop_instance
from service.types import Float, Frame, Grey8

MAX_PIXELS = 2**25  # of all frames of a file: 64 MiB at 16 bits, 128 frames of 512 x 512
_LEVELS = 65_535


class FrameAnswer(BaseModel):
    """One frame. Its values are `pixels * slope + intercept`, larger is brighter.

    They are for people: the header's rescale, VOI window or LUT and polarity are applied, so that a DICOM frame with a
    window has values 0 to 255, and padding is dark. Models see the values before the window. `instance` and `series`
    are the sender's own UIDs, to find the frame in the answer of POST /v1/studies; nothing else of the header is
    returned.
    """

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1, description="of the frame in its file")
    width: int
    height: int
    bits: Literal[8, 16]
    slope: float
    intercept: float
    window: tuple[float, float] = Field(description="values to show black and white where nothing else is asked")
    spacing: tuple[float, float] | None = Field(description="mm between rows and between columns")
    modality: str | None = Field(description="DICOM Modality (0008,0060)")
    series: str = Field(description="Series Instance UID, empty for PNG and JPEG")
    instance: str = Field(description="SOP Instance UID, empty for PNG and JPEG")
    pixels: str = Field(description="base64 of a zlib stream: rows, top first, unsigned, little-endian")
    warnings: list[str]


class FramesAnswer(BaseModel):
    """The answer of POST /v1/frames."""

    model_config = ConfigDict(frozen=True)

    frames: list[FrameAnswer]
    notice: str = RESEARCH_NOTICE


def frames_answer(content: bytes) -> FramesAnswer:
    """Every frame of a file.

    Args:
        content: a whole PNG, JPEG or DICOM file.

    Raises:
        UnreadableImage: a more specific subclass says why; TooManyPixels also beyond `MAX_PIXELS`.
    """
    if sniff(content) != "dicom":
        return FramesAnswer(frames=[_raster_answer(frame) for frame in read_frames(content, "")])
    ds = parse(content)
    described = describe(ds)
    _check(described.pixels)
    frames = decode(ds, described, "")
    header, _ = readable_header(ds)
    return FramesAnswer(frames=[_slice_answer(one) for one in slices_of(header, frames)])


def _check(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise TooManyPixels(f"the frames of the file have more than {MAX_PIXELS} pixels together")


def _raster_answer(frame: Frame) -> FrameAnswer:
    _check(frame.pixels.size)
    return _answer(frame, number=1, spacing=None, series="", instance="")


def _slice_answer(one: Slice) -> FrameAnswer:
    series = uid_of(one.header, "SeriesInstanceUID")
    return _answer(one.frame, number=one.number, spacing=one.spacing, series=series, instance=sop_instance(one))


def _answer(
    frame: Frame, *, number: int, spacing: tuple[float, float] | None, series: str, instance: str
) -> FrameAnswer:
    stored, slope, intercept = quantised(frame.shown())
    height, width = stored.shape
    return FrameAnswer(
        number=number,
        width=width,
        height=height,
        bits=8 if stored.dtype == np.uint8 else 16,
        slope=slope,
        intercept=intercept,
        window=window(frame),
        spacing=spacing,
        modality=frame.modality,
        series=series,
        instance=instance,
        pixels=base64.b64encode(zlib.compress(stored.tobytes(), 1)).decode(),
        warnings=list(frame.warnings),
    )


def quantised(pixels: Grey8 | Float) -> tuple[NDArray[Any], float, float]:
    """Values in at most 16 bits.

    Args:
        pixels: `[H, W]` uint8 or float32.

    Returns:
        uint8 as it is, else uint16 little-endian `[H, W]`; slope and intercept. Whole numbers that span less than 2^16
        come back exactly, others within half a step of their range / 65535.
    """
    if pixels.dtype == np.uint8:
        return pixels, 1.0, 0.0
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    whole = high - low <= _LEVELS and bool((values == np.rint(values)).all())
    slope = 1.0 if whole or high == low else (high - low) / _LEVELS
    return np.rint((values - low) / slope).astype("<u2"), slope, low
