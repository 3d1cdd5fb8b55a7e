"""What can be chosen of the DICOM objects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.validation import Strict

Kind = Literal["report", "parametric_map", "segmentation", "secondary_capture", "presentation"]
KINDS: tuple[Kind, ...] = ("parametric_map", "segmentation", "secondary_capture", "presentation", "report")
"""Every kind, in the order in which they are made: those that are referred to come first."""

DEFAULT_KINDS: tuple[Kind, ...] = ("parametric_map", "secondary_capture", "report")
"""What common viewers display; `docs/dicom-results.md` says why."""


class Options(Strict):
    """How the objects are made; another choice gives other UIDs.

    Attributes:
        segment_from: share of the series' largest positive evidence from which a pixel belongs to the segment.
        color_range: let the map's palette be bound to its values by a Stored Value Color Range, for viewers that honour
            it; dciodvfy reports that as an error.
        opacity: of the map's colours over the source, in the presentation state.
    """

    segment_from: float = Field(default=0.5, gt=0, le=1)
    color_range: bool = False
    opacity: float = Field(default=0.5, gt=0, lt=1)
