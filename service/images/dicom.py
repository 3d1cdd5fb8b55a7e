"""DICOM instances to grey frames (PS3.3 C.7.6.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID

from service.errors import CorruptImage
from service.images.codecs import FILE_ERRORS, count_frames, stored_frames
from service.images.contents import content_of
from service.images.grading import grade, padded, read_grading, without_gaps
from service.images.grid import read_grid
from service.images.layout import GREY, Layout, read_layout
from service.images.palette import rgb_of
from service.images.parsing import condition_of, parse, require_pixels
from service.images.pixels import Budget, check_size, flat_note, grey_of
from service.images.syntaxes import require_decoder
from service.types import Frame

_LOSSY = "lossy compressed source"
_FEWER = "the file holds fewer frames than its header announces; those that are there are used"
_EXPLICIT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


@dataclass(frozen=True, slots=True)
class Description:
    """What holds for every frame of the instance; `frames` are there, of those that `layout` announces."""

    layout: Layout
    frames: int
    modality: str | None
    notes: tuple[str, ...]

    @property
    def photometric(self) -> str:
        """Photometric Interpretation, one of those of `service.images.layout`."""
        return self.layout.photometric

    @property
    def bits(self) -> int:
        """Depth of the decoded samples: Bits Stored (0028,0101); colour comes in 8."""
        return 8 if self.layout.colour else self.layout.stored

    @property
    def pixels(self) -> int:
        """Pixels of all frames together."""
        return self.layout.rows * self.layout.columns * self.frames


def looks_like_dicom(content: bytes) -> bool:
    """Whether a file without a preamble starts with a plausible first element of group 0002 or 0008."""
    if len(content) < 12:
        return False
    if content[4:6] in _EXPLICIT_VRS:
        return content[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
    return content[:2] == b"\x08\x00" and int.from_bytes(content[4:8], "little") < min(len(content), 1 << 16)


def read_dicom(content: bytes, name: str, budget: Budget | None = None) -> list[Frame]:
    """Decode every frame of an instance.

    Pixels are modality values: unsigned 8-bit ones without a rescale come as uint8 (255 minus the value for
    MONOCHROME1), others as float32 (negated for MONOCHROME1). VOI LUT and window are in the frame's `display`. What is
    no number takes the darkest value.

    Args:
        content: the whole file, with or without preamble and file meta information.
        name: name of the frame, or the stem of `name#1`, `name#2`, ... where there are several.
        budget: of all files of a request; None for any number.

    Returns:
        One frame for each of Number of Frames (0028,0008), in order.

    Raises:
        CorruptImage: truncated, damaged or contradictory.
        NoPixelData: nothing to show in the instance.
        TooManyImages: beyond the budget.
        TooManyPixels: the header announces more than the limits of `service.images.pixels`.
        UnsupportedFormat: photometric interpretation other than grey, palette, RGB or YBR.
        UnsupportedTransferSyntax: no decoder for the pixel data.
    """
    ds = parse(content)
    described = describe(ds)
    if budget is not None:
        budget.take(described.frames, described.pixels)
    return decode(ds, described, name)


def describe(ds: Dataset) -> Description:
    """Read what is needed before the pixel data are touched (PS3.3 C.7.6.3).

    Args:
        ds: a parsed instance.

    Raises:
        CorruptImage: incomplete or contradictory.
        NoPixelData: nothing to show in the instance.
        TooManyPixels: the header announces more than the limits of `service.images.pixels`.
        UnsupportedFormat: photometric interpretation other than grey, palette, RGB or YBR; bits or samples that no
            decoder takes.
        UnsupportedTransferSyntax: no decoder for the pixel data.
    """
    try:
        syntax = UID(str(ds.file_meta.TransferSyntaxUID).split("\0")[0].strip())
        require_pixels(ds)
        require_decoder(syntax)
        layout = read_layout(ds, syntax)
        if min(layout.rows, layout.columns, layout.frames) < 1:
            raise CorruptImage("the DICOM image description gives an image without pixels")
        check_size(layout.columns, layout.rows, layout.frames)
        frames = count_frames(ds, layout)
        lossy = str(ds.get("LossyImageCompression")).strip() == "01"
        notes = (*condition_of(ds).notes, *layout.notes, *[_LOSSY] * lossy, *[_FEWER] * (frames < layout.frames))
        return Description(layout, frames, _modality(ds), notes)
    except FILE_ERRORS:
        raise CorruptImage("the DICOM image description is incomplete or damaged") from None


def decode(ds: Dataset, described: Description, name: str) -> list[Frame]:
    """Decode the frames of a parsed instance; for what comes out see `read_dicom`.

    Args:
        ds: the instance, with its pixel data.
        described: what `describe` gave for it.
        name: of the frame, or the stem of the frames' names.

    Raises:
        CorruptImage: the pixel data, or a table that they need, are truncated, damaged or contradictory.
        UnsupportedTransferSyntax: no decoder for the pixel data.
    """
    frames: list[Frame] = []
    for index, stored in enumerate(stored_frames(ds, described.layout)):
        frame_name = name if described.frames == 1 else f"{name}#{index + 1}"
        padding, display = None, None
        if described.photometric in GREY:
            if stored.ndim != 2:  # several samples a pixel
                raise CorruptImage("the DICOM pixel data do not fit the photometric interpretation")
            grading = read_grading(ds, index)
            pixels, gaps = without_gaps(grade(stored, grading))
            padding, display = padded(stored, grading), grading.display
            colour, notes = 0.0, described.notes + grading.notes + gaps
        else:
            pixels, colour = grey_of(rgb_of(stored, ds, described.photometric, described.bits))
            notes = described.notes
        notes += flat_note(pixels if padding is None else pixels[~padding])
        grid = read_grid(ds, index)
        frames.append(
            Frame(
                name=frame_name,
                pixels=pixels,
                colour=colour,
                modality=described.modality,
                warnings=notes,
                spacing=grid.spacing,
                aspect=grid.aspect,
                orientation=grid.orientation,
                padding=padding,
                display=display,
                content=content_of(ds, index),
            )
        )
    return frames


def _modality(ds: Dataset) -> str | None:
    """Modality (0008,0060), where it is a code string and not something else typed into that field."""
    value = ds.get("Modality")
    return value if isinstance(value, str) and re.fullmatch(r"[A-Z0-9_]{1,16}", value) else None
