"""The values that travel through the service, all of them frozen.

Axes are always N, C, H, W. Images are grey: one channel, row 0 at the top.

    bytes -> Frame -> Item -> Outputs -> Prediction, Attribution
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.validation import Strict

Grey8 = NDArray[np.uint8]
Float = NDArray[np.float32]


class PreprocessingSpec(Strict):
    """How a frame becomes model input; it travels with the model in its manifest.

    `field_of_view` names what is cropped to: `head` (the largest bright object), `scan` (the frame
    without the saturated triangles that an OCT device leaves where it registered the frame) or
    `frame` (everything). `window` holds two percentiles of the pixels inside the field of view that
    are mapped to 0 and 255. The crop is widened by `margin` (a fraction of its longer side), padded to
    a square with black and resampled to `size` x `size`.
    """

    field_of_view: Literal["head", "scan", "frame"]
    window: tuple[float, float] = Field(default=(0.5, 99.5))
    margin: float = Field(default=0.02, ge=0, le=0.5)
    size: int = Field(default=224, ge=32, le=1024)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a frame in its own pixels; it may reach beyond the frame where input was padded."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded grey image.

    `pixels` is `[H, W]`, uint8 (0..255) or float32 (any range, larger is brighter). `colour` is the mean
    spread between the colour channels of the source, 0..1 (0 for a grey image). `modality` is the DICOM
    Modality (0008,0060) or None where the source does not say. `spacing` is its Pixel Spacing (0028,0030), mm between
    rows and between columns, or None where the source has none.
    """

    name: str
    pixels: Grey8 | Float
    colour: float = 0.0
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Model input for one frame: `pixels` uint8 `[H, W]`, and the region of the frame that it covers."""

    pixels: Grey8
    region: Region


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass gives: `logits` float32 `[N, K]`, `cam` float32 `[N, K, h, w]`, signed and unscaled.

    `more` holds what else was asked of the graph, by output name, float32 `[N, ...]` (see `service.bundle`).
    """

    logits: Float
    cam: Float
    more: Mapping[str, Float] = field(default_factory=dict[str, Float])

    def row(self, index: int) -> Outputs:
        """The outputs of one image, without the axis N."""
        more = {name: values[index] for name, values in self.more.items()}
        return Outputs(self.logits[index], self.cam[index], more)


@dataclass(frozen=True, slots=True)
class Target:
    """The class that is explained: `index` by `name`; with `against`, why it and not that other class."""

    name: str
    index: int
    against_name: str | None = None
    against: int | None = None

    def weights(self, classes: int) -> Float:
        """What the target is of the logits, float32 `[K]`: 1 at `index`, -1 at `against`."""
        weights = np.zeros(classes, np.float32)
        weights[self.index] = 1
        if self.against is not None:
            weights[self.against] = -1
        return weights


@dataclass(frozen=True, slots=True)
class Masks:
    """What a forward pass of a segmentation model gives: `probabilities` float32 `[N, H, W]`, 0..1."""

    probabilities: Float

    def row(self, index: int) -> Masks:
        """The mask of one image, without the axis N."""
        return Masks(self.probabilities[index])


Picture = Literal["png", "webp", "jpeg"]  # how overlays are compressed
Encoding = Literal["numbers", "float16", "float32"]  # how maps are written: rows of numbers, or base64, little-endian

Stopped = Literal["complete", "converged", "budget", "deadline"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """A saliency map: `values` float32 `[h, w]`, signed, never rescaled, over the whole model input.

    Attributes:
        method: the method's name.
        target: what is explained.
        values: in the unit that the method states; mostly logits.
        exact: the method computes its definition to floating-point precision.
        parameters: what the method was run with.
        evaluations: images that went through the model for it, besides the prediction.
        additivity_error: how far the values' sum is from what it should be, in logits; None where the method promises
            no sum.
        interval: half-widths of the 95 % confidence intervals, float32 `[h, w]`, in the unit of `values`; None where
            the method does not sample.
        stopped: why the method ended: everything computed, interval tight, budget spent, deadline reached.
    """

    method: str
    target: Target
    values: Float
    exact: bool
    parameters: dict[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    evaluations: int = 0
    additivity_error: float | None = None
    interval: Float | None = None
    stopped: Stopped = "complete"
