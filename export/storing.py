"""Legal ways to store the same picture, in other pixels or under another header, with the same anatomy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    OphthalmicTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from service.types import Float, Grey8

_WHITE = 4095  # of 12 bits stored
_STEP = 16  # a picture of 8 bits is stored with as many levels in between
_PADDING = -2000
_FINE = 0.7  # mm: the smaller spacing of the pixels
_CLASSES = {"MR": MRImageStorage, "OPT": OphthalmicTomographyImageStorage}
_ROWS, _COLUMNS = (1, 0, 0), (0, 1, 0)  # an axial slice as radiologists see it; a B-scan with the vitreous at the top

Stack = NDArray[np.uint16] | NDArray[np.int16] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a test part.

    Attributes:
        pixels: uint8 `[H, W]`.
        modality: Modality (0008,0060).
        aspect: spacing of rows divided by spacing of columns.
    """

    pixels: Grey8
    modality: str
    aspect: float

    @property
    def levels(self) -> NDArray[np.uint16]:
        """Bring the pixels to 12 bits, `[H, W]`."""
        return self.pixels.astype(np.uint16) * _STEP

    @property
    def spacing(self) -> tuple[float, float]:
        """Millimetres between rows and between columns."""
        return _FINE * min(1.0, self.aspect), _FINE * min(1.0, self.aspect) / self.aspect


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture as a file.

    Attributes:
        content: the file.
        restore: brings a map float32 on the stored pixels back to the picture's, `[H, W]`.
        frame: of the file that shows the picture, from 0.
    """

    content: bytes
    restore: Callable[[Float], Float]
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to store a picture; `resampled` where its pixels were interpolated."""

    store: Callable[[Picture], Stored]
    resampled: bool = False


def plain(picture: Picture) -> Stored:
    """Store 12 bits in Explicit VR Little Endian, upright, without a window: what others are compared with."""
    return Stored(_file(_instance(picture, picture.levels)), _same)


def ways(aspect: float) -> dict[str, Way]:
    """List the ways to store a picture.

    Args:
        aspect: of the pixels that the model sees as square. Where it is not 1, as in OCT, grids differ by the factors
            that devices differ by.
    """
    square = aspect == 1
    factor = 1.5 if square else 2.0
    grids = {
        "more_rows": (factor, 1.0),
        "more_columns": (1.0, factor),
        "finer" if square else "square_pixels": (1.5, 1.5) if square else (1.0, 1 / aspect),
    }
    return {
        "window_bright": Way(partial(_with, WindowCenter=600, WindowWidth=800)),
        "window_dark": Way(partial(_with, WindowCenter=3300, WindowWidth=1600)),
        "window_narrow": Way(partial(_with, WindowCenter=1200, WindowWidth=200)),
        "voi_lut": Way(_with_voi_lut),
        "monochrome1": Way(_monochrome1),
        "signed_rescaled": Way(_signed_rescaled),
        "bits_8": Way(_eight_bits),
        "high_bit_15": Way(_high_bit_15),
        "unused_bits": Way(_unused_bits),
        "padded": Way(_padded),
        "big_endian": Way(_big_endian),
        "rle": Way(partial(_compressed, syntax=RLELossless)),
        "jpeg_ls": Way(partial(_compressed, syntax=JPEGLSLossless)),
        "jpeg_2000": Way(partial(_compressed, syntax=JPEG2000Lossless)),
        "multi_frame": Way(_multi_frame),
        "png": Way(_png),
        "rotated_180": Way(partial(_turned, quarters=2, mirrored=False)),
        "rotated_90": Way(partial(_turned, quarters=1, mirrored=False)),
        "mirrored": Way(partial(_turned, quarters=0, mirrored=True)),
        **{name: Way(partial(_regridded, factors=factors), resampled=True) for name, factors in grids.items()},
    }


def _same(found: Float) -> Float:
    return found


def _instance(picture: Picture, pixels: Stack, **elements: object) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = _CLASSES.get(picture.modality, SecondaryCaptureImageStorage)
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid() for _ in range(3))
    ds.Modality, ds.PatientID, ds.PatientName = picture.modality, "", ""
    ds.ImageOrientationPatient, ds.PixelSpacing = [*_ROWS, *_COLUMNS], list(picture.spacing)
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = 12 if pixels.dtype == np.uint16 else ds.BitsAllocated
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _file(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _with(picture: Picture, **elements: object) -> Stored:
    return Stored(_file(_instance(picture, picture.levels, **elements)), _same)


def _with_voi_lut(picture: Picture) -> Stored:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [_WHITE + 1, 0, 16])
    table.add_new("LUTData", "OW", (np.linspace(0, 1, _WHITE + 1) ** 3 * 65535).astype("<u2").tobytes())
    return _with(picture, VOILUTSequence=[table])


def _monochrome1(picture: Picture) -> Stored:
    inverted = (_WHITE - picture.levels).astype(np.uint16)
    return Stored(_file(_instance(picture, inverted, PhotometricInterpretation="MONOCHROME1")), _same)


def _signed_rescaled(picture: Picture) -> Stored:
    stored = (picture.levels.astype(np.int32) - 2048).astype(np.int16)
    return Stored(_file(_instance(picture, stored, RescaleSlope="0.5", RescaleIntercept="100")), _same)


def _eight_bits(picture: Picture) -> Stored:
    return Stored(_file(_instance(picture, picture.pixels)), _same)


def _high_bit_15(picture: Picture) -> Stored:
    return Stored(_file(_instance(picture, (picture.levels << 4).astype(np.uint16), HighBit=15)), _same)


def _unused_bits(picture: Picture) -> Stored:
    """Store an overlay in the bits above the pixels, as PS3.5 8.1.1 allowed."""
    pixels = picture.levels
    pixels[::7, ::5] |= 0xA000
    return Stored(_file(_instance(picture, pixels)), _same)


def _padded(picture: Picture) -> Stored:
    height, width = picture.pixels.shape
    rows, columns = height // 8, width // 6
    framed = np.pad(picture.levels.astype(np.int16), ((rows, rows), (columns, columns)), constant_values=_PADDING)

    def restore(found: Float) -> Float:
        return found[rows : rows + height, columns : columns + width]

    return Stored(_file(_instance(picture, framed, PixelPaddingValue=_PADDING)), restore)


def _big_endian(picture: Picture) -> Stored:
    ds = _instance(picture, picture.levels)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = picture.levels.astype(">u2").tobytes()
    return Stored(_file(ds), _same)


def _compressed(picture: Picture, syntax: UID) -> Stored:
    ds = _instance(picture, picture.levels)
    ds.compress(syntax)
    return Stored(_file(ds), _same)


def _multi_frame(picture: Picture) -> Stored:
    """Three frames of an enhanced instance, all description in its functional groups (PS3.3 C.7.6.16)."""
    stack = np.stack([picture.levels[::-1], picture.levels, picture.levels // 2])
    ds = _instance(picture, stack, NumberOfFrames=3)
    if picture.modality == "MR":
        ds.SOPClassUID = EnhancedMRImageStorage
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = ds.PixelSpacing, ds.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for slope in (1, 3, 2):
        group, values = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, -7 * slope, "US"
        group.PixelValueTransformationSequence = [values]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    del ds.PixelSpacing, ds.ImageOrientationPatient
    return Stored(_file(ds), _same, frame=1)


def _png(picture: Picture) -> Stored:
    _, content = cv2.imencode(".png", picture.pixels)
    return Stored(content.tobytes(), _same)


def _turned(picture: Picture, quarters: int, mirrored: bool) -> Stored:
    """Rotate counter-clockwise by right angles, or mirror left and right; the header says so."""
    turned = np.ascontiguousarray(np.rot90(picture.levels[:, :: -1 if mirrored else 1], quarters))
    rows, columns = np.array(_ROWS) * (-1 if mirrored else 1), np.array(_COLUMNS)
    for _ in range(quarters):
        rows, columns = columns, -rows
    ds = _instance(picture, turned, ImageOrientationPatient=[*map(float, rows), *map(float, columns)])
    if quarters % 2:
        ds.PixelSpacing = list(picture.spacing[::-1])

    def restore(found: Float) -> Float:
        return np.rot90(found, -quarters)[:, :: -1 if mirrored else 1]

    return Stored(_file(ds), restore)


def _regridded(picture: Picture, factors: tuple[float, float]) -> Stored:
    """Interpolate to a finer grid, cubic, and say its spacing."""
    height, width = picture.pixels.shape
    rows, columns = round(height * factors[0]), round(width * factors[1])
    fine = cv2.resize(picture.levels.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    stored = np.clip(np.rint(fine), 0, _WHITE).astype(np.uint16)
    spacing = [picture.spacing[0] * height / rows, picture.spacing[1] * width / columns]

    def restore(found: Float) -> Float:
        return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA), np.float32)

    return Stored(_file(_instance(picture, stored, PixelSpacing=[round(value, 9) for value in spacing])), restore)
