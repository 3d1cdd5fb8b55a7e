"""The data set of a DICOM file (PS3.10 7), read within a time and a size."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from service.errors import CorruptImage, SlowImage, TooManyPixels
from service.images.codecs import FILE_ERRORS, quiet
from service.images.layout import PIXEL_KEYWORDS
from service.images.patience import Patience, PatientStream
from service.images.pixels import MAX_FILE_PIXELS, silence

# pydicom checks values against their VR and quotes the offending ones in its warnings.
config.settings.reading_validation_mode = config.IGNORE

MAX_HEADER = 6 * 2**20  # bytes that pydicom converts, element by element in Python: 12 KiB for each of 512 frames
_LARGE = 2**16  # bytes of a value: less could be a number or a text by an unknown VR
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_INFLATED = ExplicitVRLittleEndian.encode().ljust(len(_DEFLATED), b"\0")
_dcmread: Callable[..., FileDataset] = pydicom.dcmread  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
_MAX_INFLATED = 4 * MAX_FILE_PIXELS  # bytes of a deflated data set


def parse(content: bytes) -> Dataset:
    """Read the data set of a file; the transfer syntax is always set afterwards.

    Elements are converted when they are first asked for, and may raise any of `codecs.FILE_ERRORS` then.

    Args:
        content: the whole file, with or without preamble and file meta information.

    Raises:
        CorruptImage: truncated or damaged.
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


def _read(content: bytes, patience: Patience) -> FileDataset:
    force = content[128:132] != b"DICM"
    try:
        ds = _dcmread(_Stream(content, patience), force=force)
    except _Deflated as deflated:
        data = _inflate(content[deflated.start :], patience)
        meta = content[: deflated.start].replace(_DEFLATED, _INFLATED)
        ds = _dcmread(PatientStream(content := meta + data, patience), force=force)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if len(content) > MAX_HEADER and len(content) - _bulk(ds) > MAX_HEADER:
        raise SlowImage(f"the DICOM header may have at most {MAX_HEADER} bytes beside its pixels")
    return ds


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


def _inflate(deflated: bytes, patience: Patience) -> bytes:
    inflater, pending, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), deflated, list[bytes](), 0
    while pending and not inflater.eof:
        patience.check()
        parts.append(inflater.decompress(pending, 1 << 20))
        pending = inflater.unconsumed_tail
        total += len(parts[-1])
        if total > _MAX_INFLATED:
            raise TooManyPixels("the deflated data set is too large")
    if not inflater.eof:
        raise EOFError
    return b"".join(parts)


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
