"""Compressed frames to samples: one fixed decoder for each kind of compression, and no fall-back to another.

So a file reads the same wherever the service runs. What can take a process down, or keep it busy without end, works in
one of its own (`service.images.decoder_process`).
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from service.errors import CorruptImage
from service.images import decoder_process
from service.images.codestreams import Codestream, check_frame, ends_early, read_codestream, without_stuffing
from service.images.fragments import JP2_START, JPEG_END
from service.images.layout import Layout
from service.images.native import layout_there, most_bytes, native_frames, options_of
from service.images.patience import Patience, PatientStream
from service.images.samples import Samples
from service.images.syntaxes import DEFLATED_FRAMES, JPEG_2000, NATIVE_FRAMES, not_supported
from service.images.zeiss import unscrambled

_jpeg_ls: Any = import_module("jpeg_ls")
_LARGE_RLE = 2**20  # bytes of a frame: RLE makes 64 times as many, or works for none; less is not worth the way
_JPEG_2000_STARTS = (JP2_START, b"\xff\x4f")
_LETTERS, _SMALL_LETTERS = tuple(b"RGB"), tuple(b"rgb")  # as identifiers of components they say RGB, Pillow knows one


def decode_frame(frame: bytes, layout: Layout, patience: Patience, *, zeiss: bool) -> Samples:
    """Decode a frame.

    Args:
        frame: as it is stored; may raise any of `codecs.FILE_ERRORS`.
        layout: what the header says.
        patience: of the file.
        zeiss: whether a Zeiss device made it.

    Raises:
        CorruptImage: damaged, or of another size than the header says.
        SlowImage: takes too long.
        UnsupportedTransferSyntax: a sound frame of a kind that there is no decoder for.
    """
    if layout.syntax in NATIVE_FRAMES:
        return _native(frame, layout)
    if layout.syntax == uid.RLELossless:
        return _rle(frame, layout)
    if layout.syntax in JPEG_2000 and not frame.startswith(_JPEG_2000_STARTS):
        plain = unscrambled(frame)
        if plain is None and zeiss:
            raise CorruptImage("a Zeiss obfuscated export that cannot be read; export it unencrypted")
        frame = plain or frame
    return _codestream(frame, layout, patience)


def _codestream(frame: bytes, layout: Layout, patience: Patience) -> Samples:
    """JPEG, JPEG-LS or JPEG 2000, whichever the frame itself says that it is."""
    found = read_codestream(frame)
    if found is None:
        raise CorruptImage("the compressed pixel data are damaged: they have no header")
    check_frame(frame, found, layout)
    if found.kind == "dct":
        return _dct(frame, found, layout, patience)
    if found.kind == "jpeg-ls":
        return _by_charls(frame, found, layout)
    if found.kind == "lossless":
        cells = _apart(frame, uid.JPEGLosslessSV1, layout, 8 if found.bits <= 8 else 16, found.bits)
    else:
        width = 8 if found.bits <= 8 else 16 if found.bits <= 16 else 32
        if ends_early(frame):  # all but this may be there
            frame = frame.removesuffix(b"\0") + JPEG_END
        cells = _apart(frame, uid.JPEG2000Lossless, layout, width, found.bits)
    return Samples(_shaped(cells, layout), layout.photometric, found.bits, found.signed)


def _native(frame: bytes, layout: Layout) -> Samples:
    """Read a frame that is not compressed, or deflated (RFC 1951), in little endian."""
    one = replace(layout, frames=1)
    if layout.syntax == DEFLATED_FRAMES:
        frame = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, most_bytes(one))
    there = layout_there(len(frame), one)
    if not there.frames:
        raise CorruptImage("the pixel data are truncated: a frame ends early")
    return next(native_frames(frame, there, uid.ExplicitVRLittleEndian, "OB"))


def _rle(frame: bytes, layout: Layout) -> Samples:
    """RLE Lossless (PS3.5 G): a segment for each byte of a pixel, whatever Bits Allocated says of them."""
    segments = int.from_bytes(frame[:4], "little")
    if layout.allocated == 1:
        raise not_supported("RLE Lossless of single bits")
    if segments not in (layout.samples, 2 * layout.samples, 4 * layout.samples):
        raise CorruptImage("the RLE pixel data have other segments than the DICOM header says")
    bits = 8 * segments // layout.samples
    if len(frame) > _LARGE_RLE:
        cells = _apart(frame, uid.RLELossless, layout, bits, bits)
        planes = cells.reshape(layout.samples, layout.rows, layout.columns)
        return Samples(planes[0] if layout.samples == 1 else planes.transpose(1, 2, 0), layout.photometric, bits)
    options: dict[str, Any] = options_of(replace(layout, frames=1, allocated=bits, stored=bits))
    decoder = get_decoder(uid.RLELossless)  # its Rust plug-in panics on damaged data, past every `except Exception`
    cells, _ = decoder.as_array(
        encapsulate([frame], has_bot=False), index=0, raw=True, decoding_plugin="pydicom", **options
    )
    return Samples(cells, layout.photometric, bits)


def _dct(frame: bytes, found: Codestream, layout: Layout, patience: Patience) -> Samples:
    """Lossy JPEG, sequential or progressive: of 8 bits by Pillow, of 12 by GDCM."""
    if found.bits > 8:
        if layout.samples > 1:
            raise not_supported("JPEG of 12 bits in colour")
        cells = _apart(frame, uid.JPEGExtended12Bit, layout, 16, found.bits)
        return Samples(_shaped(cells, layout), layout.photometric, found.bits, exact=True)
    image = Image.open(PatientStream(frame, patience), formats=("JPEG",))
    untold = not {"jfif", "adobe_transform"} & image.info.keys()  # then the header tells; else the frame is right
    if found.components == _SMALL_LETTERS or (untold and layout.photometric == "RGB" and found.components != _LETTERS):
        image.draft("YCbCr", image.size)  # as it is stored
    return Samples(np.asarray(image), "RGB" if layout.samples > 1 else layout.photometric, 8, exact=True)


def _by_charls(frame: bytes, found: Codestream, layout: Layout) -> Samples:
    """JPEG-LS."""
    try:
        data, info = _jpeg_ls.decode_pixel_data(frame)
    except (RuntimeError, ValueError):
        plain = without_stuffing(frame)
        if plain == frame:
            raise
        data, info = _jpeg_ls.decode_pixel_data(plain)
    cells: NDArray[Any] = np.frombuffer(data, "u1" if found.bits <= 8 else "<u2")
    if layout.samples > 1 and info["interleave_mode"] == 0:
        cells = cells.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
    return Samples(_shaped(cells, layout), layout.photometric, found.bits)


def _apart(frame: bytes, syntax: uid.UID, layout: Layout, allocated: int, stored: int) -> NDArray[Any]:
    """Cells of a frame, one behind the other, decoded in another process."""
    described = decoder_process.Described(
        syntax=str(syntax),
        rows=layout.rows,
        columns=layout.columns,
        photometric=layout.photometric,
        samples=layout.samples,
        planar=0,
        allocated=allocated,
        stored=stored,
        signed=0,
    )
    return np.frombuffer(decoder_process.decode(frame, described), f"<u{allocated // 8}")


def _shaped(cells: NDArray[Any], layout: Layout) -> NDArray[Any]:
    shape = (layout.rows, layout.columns)
    return cells.reshape(shape if layout.samples == 1 else (*shape, layout.samples))
