"""The values that travel through the service, all of them frozen.

Axes are always N, C, H, W. Images are grey: one channel, row 0 at the top.

    bytes -> Frame -> Item -> Outputs -> Prediction, Attribution
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.validation import Strict

Grey8 = NDArray[np.uint8]
Float = NDArray[np.float32]


# Direction cosines of the rows, then of the columns (PS3.3 C.7.6.2.1.1)
Orientation = tuple[float, float, float, float, float, float]
Plane = Literal["axial", "coronal", "sagittal", "oblique"]
Assessable = Literal["yes", "doubtful", "no"]  # whether a model can answer for an image
Decision = Literal["present", "absent", "not decided", "not assessed"]  # of a finding


class PreprocessingSpec(Strict):
    """How a frame becomes model input; it travels with the model in its manifest.

    Attributes:
        values: what the model sees: `modality` values, after Modality LUT or rescale. VOI window, VOI LUT and
            Presentation LUT are for display only.
        padding: pixels of Pixel Padding Value are `background`: black, and in no percentile.
        orientation: `patient` brings slices to the radiological orientation of their plane, `depth` B-scans of the
            retina to columns from the vitreous to the choroid, both from Image Orientation (Patient); `stored` leaves
            them as they are, as all images without an orientation.
        pixel_aspect: spacing of rows divided by spacing of columns that the model sees as square pixels. Images whose
            header gives another one are resampled; those without a spacing are taken to have it.
        field_of_view: what is cropped to: `head` (what is no background), `scan` (the frame without the saturated
            triangles that an OCT device leaves where it registered the frame) or `frame` (everything). The slices of a
            series share one crop.
        window: two percentiles of the pixels inside the crop that are mapped to 0 and 255.
        margin: by which the crop is widened, as a fraction of its longer side, before it is padded to a square with
            black.
        size: side of the square, in pixels, that the crop is resampled to.
    """

    values: Literal["modality"] = "modality"
    padding: Literal["background"] = "background"
    orientation: Literal["stored", "patient", "depth"] = "stored"
    pixel_aspect: float = Field(default=1.0, gt=0, le=64)
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
class Turn:
    """One of the eight ways to store the same picture: transposed, then its rows and its columns reversed."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False


UPRIGHT = Turn()


class Display(Protocol):
    """Maps the pixels of a frame to display values, 0..255: VOI window or VOI LUT, for people only."""

    def __call__(self, pixels: Grey8 | Float) -> Float:
        """Map `[H, W]` of any range to float32 `[H, W]`, 0..255, larger is brighter."""
        ...


ContentKind = Literal["localiser", "mosaic", "map", "phase", "projection", "difference", "fat", "capture", "colour"]


@dataclass(frozen=True, slots=True)
class Content:
    """What the pixels of a frame are, where they are no picture of one slice as it was acquired.

    `reason` is for people, and names the attribute that says so; it holds no values of the header.
    """

    kind: ContentKind
    reason: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded grey image.

    Attributes:
        name: of the file, and of the frame in it where there are several.
        pixels: `[H, W]`, uint8 (0..255) or float32 (any range): modality values; larger is brighter, so that those of
            MONOCHROME1 are negated.
        colour: mean spread between the colour channels of the source, 0..1; 0 for a grey image.
        modality: Modality (0008,0060), None where the source does not say.
        warnings: what a reader must know of the image.
        spacing: Pixel Spacing (0028,0030), mm between rows and between columns, None where the source has none.
        aspect: spacing of rows divided by spacing of columns, from whichever attribute gives it; None where none does.
        orientation: Image Orientation (Patient) (0020,0037), None where the source does not say.
        padding: bool `[H, W]`, true where a pixel lies outside of the picture (Pixel Padding Value); None: nowhere.
        display: how people see the pixels; None: as they are.
        content: what the pixels are by the header, where they are no picture of a slice.
    """

    name: str
    pixels: Grey8 | Float
    colour: float = 0.0
    modality: str | None = None
    warnings: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None
    aspect: float | None = None
    orientation: Orientation | None = None
    padding: NDArray[np.bool_] | None = None
    display: Display | None = None
    content: Content | None = None

    def shown(self) -> Grey8 | Float:
        """Compute the display values.

        Returns:
            `[H, W]`: float32 0..255 with a VOI window or LUT, else the pixels as they are. Padding is 0; in float32
            pixels without a VOI it keeps its value, but is no brighter than the darkest of the others, and at most four
            times their range below it.
        """
        shown = self.pixels if self.display is None else self.display(self.pixels)
        if self.padding is None:
            return shown
        if self.display is not None or shown.dtype == np.uint8:
            return np.where(self.padding, np.zeros(1, shown.dtype), shown)
        darkest, brightest = shown[~self.padding].min(), shown[~self.padding].max()
        return np.where(self.padding, np.clip(shown, darkest - 4 * (brightest - darkest), darkest), shown)


@dataclass(frozen=True, slots=True)
class Item:
    """Model input for one frame.

    Attributes:
        pixels: uint8 `[H, W]`, in the model's orientation.
        region: of the frame, in its stored rows and columns, that the pixels cover.
        turn: from the stored orientation to that of the pixels.
        unseen: share of the frame's pixels that the model does not see, 0..1: outside of the region, padding, fill.
    """

    pixels: Grey8
    region: Region
    turn: Turn = UPRIGHT
    unseen: float = 0.0


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

    Methods make it in the model's orientation; `service.explainers.base.run_together` returns it in that of the source.

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
