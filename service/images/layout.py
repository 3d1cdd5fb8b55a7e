"""The Image Pixel module (PS3.3 C.7.6.3): how samples are stored, as the header says or must mean."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from service.errors import CorruptImage, NoPixelData, UnsupportedFormat
from service.images.syntaxes import ENCAPSULATED, NATIVE_FRAMES

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}  # bits
_WIDEST_PACKED = 16  # bits of samples that are not stored in whole bytes


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).upper()


_PHOTOMETRICS = {_letters(name): name for name in (*GREY, *COLOUR, PALETTE)}


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples are stored.

    Attributes:
        syntax: transfer syntax.
        keyword: of the element with the pixels, one of `PIXEL_KEYWORDS`.
        rows, columns, frames: of the image, as the header announces them.
        samples: a pixel.
        photometric: one of `GREY`, `COLOUR`, or `PALETTE`.
        planar: Planar Configuration; 0 where a compressed frame has an order of its own.
        allocated: bits of a cell; 0 where a compressed frame alone tells.
        stored: bits of a sample in it.
        high: place of the sample's highest bit, from 0.
        signed: whether that bit is a sign.
        notes: what a reader must know.
    """

    syntax: UID
    keyword: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: int
    allocated: int
    stored: int
    high: int
    signed: bool
    notes: tuple[str, ...] = ()

    @property
    def colour(self) -> bool:
        """Tell whether frames are in colour by themselves, without a palette."""
        return self.photometric in COLOUR


def photometric_of(ds: Dataset) -> str | None:
    """Photometric Interpretation (0028,0004), whatever its case, spaces and underscores are.

    Args:
        ds: an instance; may raise any of `codecs.FILE_ERRORS`.

    Returns:
        One of `GREY`, `COLOUR`, or `PALETTE`; MONOCHROME2 where there is none, and one sample a pixel; else None.
    """
    letters = _letters(str(ds.get("PhotometricInterpretation") or ""))
    if not letters and _number(ds, "SamplesPerPixel") in (None, 1):
        return "MONOCHROME2"
    return _PHOTOMETRICS.get(letters)


def read_layout(ds: Dataset, syntax: UID) -> Layout:
    """Read how samples are stored; what is missing and can mean one thing only is taken for that.

    Args:
        ds: an instance; may raise any of `codecs.FILE_ERRORS`.
        syntax: its transfer syntax.

    Raises:
        CorruptImage: incomplete or contradictory.
        NoPixelData: nothing to show in the instance.
        UnsupportedFormat: another photometric interpretation, or another number of bits or samples than is read.
    """
    keyword = next((keyword for keyword in PIXEL_KEYWORDS if keyword in ds), None)
    if keyword is None:
        raise NoPixelData("the DICOM instance holds no pixel data")
    lacks: list[str] = []
    photometric, samples = _colours(ds, lacks)
    encoded = syntax in ENCAPSULATED
    if keyword in _FLOATS:
        allocated = stored = _FLOATS[keyword]
        high, signed = stored - 1, False
    else:
        allocated, stored, high = _bits(ds, lacks, encoded=encoded)
        signed = _choice(ds, "PixelRepresentation", lacks) == 1 and photometric not in COLOUR and stored > 1
    raw = not encoded or syntax in NATIVE_FRAMES
    if raw and not (1 <= allocated <= _WIDEST_PACKED or allocated in (32, 64)):
        raise _unsupported("BitsAllocated")
    planar = _choice(ds, "PlanarConfiguration", lacks) if raw and samples > 1 else 0
    return Layout(
        syntax=syntax,
        keyword=keyword,
        rows=_required(ds, "Rows"),
        columns=_required(ds, "Columns"),
        frames=_number(ds, "NumberOfFrames") or 1,
        samples=samples,
        photometric=photometric,
        planar=planar,
        allocated=allocated,
        stored=stored,
        high=high,
        signed=signed,
        notes=(f"the header lacks {', '.join(lacks)}; the usual meaning is taken",) if lacks else (),
    )


def _colours(ds: Dataset, lacks: list[str]) -> tuple[str, int]:
    """Photometric Interpretation, Samples per Pixel."""
    photometric, samples = photometric_of(ds), _number(ds, "SamplesPerPixel")
    if not str(ds.get("PhotometricInterpretation") or "").strip():
        if photometric is None:
            raise _missing("PhotometricInterpretation")
        lacks.append("Photometric Interpretation")
    if photometric is None:
        raise UnsupportedFormat("the DICOM photometric interpretation is not supported")
    samples = samples or (3 if photometric in COLOUR else 1)
    if samples not in (1, 3):
        raise _unsupported("SamplesPerPixel")
    return photometric, samples


def _bits(ds: Dataset, lacks: list[str], *, encoded: bool) -> tuple[int, int, int]:
    """Read Bits Allocated, Bits Stored, High Bit; compressed frames know better, and may be the only ones that know."""
    allocated, stored, high = (_number(ds, keyword) or 0 for keyword in ("BitsAllocated", "BitsStored", "HighBit"))
    if not allocated and stored:
        allocated = 8 if stored <= 8 else 16 if stored <= 16 else 32
        lacks.append("Bits Allocated")
    if not allocated and not encoded:
        raise _missing("BitsAllocated")
    if not stored and allocated:
        stored = high + 1 if 0 < high < allocated else allocated
        lacks.append("Bits Stored")
    if min(allocated, stored) < 0 or (stored > allocated and not encoded):
        raise CorruptImage(f"{_named('BitsStored')} of the DICOM header is larger than {_named('BitsAllocated')}")
    stored = min(stored, allocated)
    return allocated, stored, high if stored - 1 <= high < allocated else stored - 1


def _choice(ds: Dataset, keyword: str, lacks: list[str]) -> int:
    """Read a number that is 0 or 1, 0 where it is missing."""
    value = _number(ds, keyword)
    if value is None:
        lacks.append(dictionary_description(keyword))
        return 0
    if value not in (0, 1):
        raise CorruptImage(f"{_named(keyword)} of the DICOM header is neither 0 nor 1")
    return value


def _required(ds: Dataset, keyword: str) -> int:
    value = _number(ds, keyword)
    if value is None:
        raise _missing(keyword)
    return value


def _number(ds: Dataset, keyword: str) -> int | None:
    """First value of an element, None where it is missing or empty; some writers leave more behind a zero byte."""
    value: object = ds.get(keyword)
    if isinstance(value, str):
        value = value.split("\0")[0].strip()
    if value is None or value == "":
        return None
    try:
        return int(value if isinstance(value, (int, float, str)) else value[0])  # pyright: ignore[reportIndexIssue, reportUnknownArgumentType]
    except IndexError:
        return None
    except (ValueError, TypeError, OverflowError):
        raise CorruptImage(f"{_named(keyword)} of the DICOM header is not a number") from None


def _missing(keyword: str) -> CorruptImage:
    return CorruptImage(f"{_named(keyword)} is missing in the DICOM header")


def _unsupported(keyword: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"this value of {_named(keyword)} is not supported")


def _named(keyword: str) -> str:
    """Name and tag of an attribute."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"{dictionary_description(tag)} {tag}"
