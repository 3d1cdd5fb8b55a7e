"""The data set of a DICOM file (PS3.10 7), read within a time and a size."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from service.errors import CorruptImage, NoPixelData, SlowImage, TooManyPixels
from service.images.codecs import FILE_ERRORS, quiet
from service.images.layout import PIXEL_KEYWORDS
from service.images.mending import mend
from service.images.patience import Patience, PatientStream
from service.images.pixels import MAX_FILE_PIXELS, silence

# pydicom checks values against their VR and quotes the offending ones in its warnings.
config.settings.reading_validation_mode = config.IGNORE

_PIXEL_TAGS = tuple(map(Tag, PIXEL_KEYWORDS))
MAX_HEADER = 6 * 2**20  # bytes that pydicom converts, element by element in Python: 12 KiB for each of 512 frames
_MENDED = "the file is not well formed: delimiters are missing or misplaced, or something follows the pixels"
_LARGE = 2**16  # bytes of a value: less could be a number or a text by an unknown VR
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_INFLATED = ExplicitVRLittleEndian.encode().ljust(len(_DEFLATED), b"\0")
_dcmread: Callable[..., FileDataset] = pydicom.dcmread  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_read_partial: Callable[..., FileDataset] = read_partial  # pyright: ignore[reportUnknownVariableType]
_ITEM = b"\xfe\xff\x00\xe0"  # the tag that each fragment, and the table of offsets before them, begins with
_UNDEFINED = 0xFFFFFFFF  # the length of what a delimiter ends
_MAX_INFLATED = 4 * MAX_FILE_PIXELS  # bytes of a deflated data set


@dataclass(frozen=True, slots=True)
class Condition:
    """In what condition a file was found; sound where nothing is true.

    Attributes:
        ends_early: it ends within its header or its pixel data. Of fragments (PS3.5 A.4) only whole ones are kept.
        lost: it goes on behind the last element that could be read.
        mended: sequences or fragments were not delimited as PS3.5 7.5 and A.4 say.
    """

    ends_early: bool = False
    lost: bool = False
    mended: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the pixels must know."""
        if self.ends_early:
            return ("the file ends early; what it holds is shown",)
        return (_MENDED,) if self.mended else ()


def parse(content: bytes) -> Dataset:
    """Read the data set of a file; the transfer syntax is always set afterwards.

    Elements are converted when they are first asked for, and may raise any of `codecs.FILE_ERRORS` then. Of a file that
    is not well formed, or ends early, what could be read is there, and `condition_of` says so.

    Args:
        content: the whole file, with or without preamble and file meta information.

    Raises:
        CorruptImage: damaged so that nothing of it can be told.
        SlowImage: so many elements that reading them takes too long, or more than `MAX_HEADER` bytes of them.
        TooManyPixels: a deflated data set that would inflate without bound.
    """
    quiet()
    silence("pydicom")
    patience = Patience()
    try:
        ds = _read(content, patience)
        if "TransferSyntaxUID" not in ds.file_meta:
            implicit, little = ds.original_encoding
            native = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else native
    except FILE_ERRORS:
        patience.check()  # pydicom makes another error of what its stream raises within a sequence
        # `from None`, here and below: the messages of pydicom can quote values of the header
        raise CorruptImage("the DICOM header is truncated or damaged") from None
    return ds


def condition_of(ds: Dataset) -> Condition:
    """The condition of the file that `parse` read."""
    return getattr(ds, "condition", Condition())


def require_pixels(ds: Dataset) -> None:
    """Refuse an instance without pixels.

    Args:
        ds: as parsed; may raise any of `codecs.FILE_ERRORS`.

    Raises:
        CorruptImage: the pixels, or some of the only frame's, are missing because the file ends early or is damaged.
        NoPixelData: it is no image.
    """
    condition = condition_of(ds)
    values: list[Any] = [element.value for element in _pixel_elements(ds)]
    if not any(values):
        if condition.ends_early:
            where = "within its pixel data" if values else "there are no pixel data up to there"
            raise CorruptImage(f"the DICOM file ends early: {where}")
        if condition.lost:
            raise CorruptImage("the DICOM header is damaged: no pixel data can be found behind the fault")
        if values or "Rows" in ds:
            raise NoPixelData("the DICOM image has no pixel data: it was stored without them, or the file ends early")
        raise NoPixelData("the DICOM instance holds no pixel data")
    if condition.ends_early and not _has_a_frame(ds, values[0]):
        raise CorruptImage("the DICOM file ends early: within its pixel data")


def _has_a_frame(ds: Dataset, data: bytes) -> bool:
    """Whether the pixel data of a file that ends early may hold a whole frame."""
    if data.startswith(_ITEM):
        table = int.from_bytes(data[4:8], "little")  # of offsets, before the fragments
        return int(ds.get("NumberOfFrames") or 1) > 1 and len(data) > 8 + table
    samples = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1)
    return 8 * len(data) >= samples * int(ds.BitsAllocated)


def _read(content: bytes, patience: Patience) -> FileDataset:
    force = content[128:132] != b"DICM"
    try:
        ds, size = _dataset(_Stream(content, patience), content, force=force)
    except _Deflated as deflated:
        data, whole = _inflate(content[deflated.start :], patience)
        content = content[: deflated.start].replace(_DEFLATED, _INFLATED) + data
        ds, size = _dataset(PatientStream(content, patience), content, force=force)
        ds.condition = replace(ds.condition, ends_early=ds.condition.ends_early or not whole)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if size > MAX_HEADER and size - _bulk(ds) > MAX_HEADER:
        raise SlowImage(f"the DICOM header may have at most {MAX_HEADER} bytes beside its pixels")
    return ds


def _dataset(stream: PatientStream, content: bytes, *, force: bool) -> tuple[FileDataset, int]:
    """Read a file that is not deflated, mended where it is not well formed; and its size then."""
    patience = stream.patience
    try:
        ds = _dcmread(stream, force=force)
        elements = _pixel_elements(ds)
        if elements and stream.tell() >= len(content):  # where it cannot read on, it stops or drops what came before
            ds.condition = Condition(ends_early=any(map(_is_cut, elements)))
            return ds, len(content)
    except FILE_ERRORS:
        patience.check()
    stream = PatientStream(content, patience)
    head = _read_partial(stream, lambda *_: True, force=force)
    mended = mend(content, stream.tell(), little=head.original_encoding[1] is not False, patience=patience)
    ds = _dcmread(PatientStream(mended.content, patience), force=force)
    cut = mended.ends_early or any(map(_is_cut, _pixel_elements(ds)))
    ds.condition = Condition(cut, mended.lost, mended.content != content)
    return ds, len(mended.content)


def _pixel_elements(ds: Dataset) -> list[DataElement | RawDataElement]:
    return [ds.get_item(tag) for tag in _PIXEL_TAGS if tag in ds]


def _is_cut(element: DataElement | RawDataElement) -> bool:
    """Whether a value is shorter than announced."""
    return (
        isinstance(element, RawDataElement)
        and element.length != _UNDEFINED
        and len(element.value or b"") < element.length
    )


class _Deflated(Exception):
    """The data set is deflated (PS3.5 A.5), from `start` on."""

    def __init__(self, start: int) -> None:
        self.start = start


class _Stream(PatientStream):
    """The file for pydicom, which reads all that is left only to inflate it, however much that becomes."""

    def look(self, size: int | None) -> None:
        if size is None or size < 0:
            raise _Deflated(self.tell())
        super().look(size)


def _inflate(deflated: bytes, patience: Patience) -> tuple[bytes, bool]:
    """As much as there is, and whether that is all."""
    inflater, pending, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), deflated, list[bytes](), 0
    while pending and not inflater.eof:
        patience.check()
        parts.append(inflater.decompress(pending, 1 << 20))
        pending = inflater.unconsumed_tail
        total += len(parts[-1])
        if total > _MAX_INFLATED:
            raise TooManyPixels("the deflated data set is too large")
    return b"".join(parts), inflater.eof


def _bulk(ds: Dataset) -> int:
    """Bytes of large values that nobody converts: pixels, and what is binary by its VR."""
    total = 0
    for element in ds.values():
        value: object = element.value
        if isinstance(value, bytes) and len(value) >= _LARGE:
            keyword = keyword_for_tag(element.tag)
            vr = element.VR or (dictionary_VR(element.tag) if keyword else "")
            # the offsets of frames, beside the pixels, are numbers
            binary = vr.startswith(("O", "UN")) and element.tag.group != 0x7FE0
            total += len(value) if keyword in PIXEL_KEYWORDS or binary else 0
    return total
