"""The process that `service.images.decoder_process` starts: the decoders, and nothing that they could take down.

It runs by its path, without the rest of the service. A request is the length of a JSON text (4 bytes, big endian), the
text, the length of a frame (8 bytes), the frame; the answer is the length of the decoded frame (8 bytes) and the frame,
or the length 0.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")  # PS3.6 A: .90, .91; HTJ2K is .201 to .203
_RLE = "1.2.840.10008.1.2.5"
_MEMORY = 4 * 2**30  # most bytes of address space
_IDLE_MEMORY = 2**30  # for the libraries, and
_SAMPLE_MEMORY = 24  # for each sample of the frame: OpenJPEG keeps some as 32 bits, several times


def main() -> None:
    """Decode until standard input ends.

    Who stops the service tells its children, too (BentoML's supervisor does), and what was accepted is still decoded.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's image
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    gdcm, openjpeg = import_module("gdcm"), import_module("openjpeg.utils")
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    answers = sys.stdout.buffer
    answers.write(b"+")
    answers.flush()
    while request := _request(sys.stdin.buffer):
        try:
            _limit(request[1])
            frame = _decode(openjpeg, gdcm, *request)
        except (RuntimeError, ValueError, TypeError, MemoryError):
            frame = b""
        answers.write(struct.pack(">Q", len(frame)) + frame)
        answers.flush()


def _request(stream: BinaryIO) -> tuple[bytes, dict[str, Any]] | None:
    head = stream.read(4)
    if len(head) < 4:
        return None
    described = json.loads(stream.read(int.from_bytes(head, "big")))
    return stream.read(int.from_bytes(stream.read(8), "big")), described


def _limit(described: dict[str, Any]) -> None:
    samples: int = described["rows"] * described["columns"] * described["samples"]
    resource.setrlimit(resource.RLIMIT_AS, (min(_MEMORY, _IDLE_MEMORY + _SAMPLE_MEMORY * samples), _MEMORY))


def _decode(openjpeg: Any, gdcm: Any, frame: bytes, described: dict[str, Any]) -> bytes:  # noqa: ANN401 - no types
    if described["syntax"].startswith(_JPEG_2000):
        return bytes(openjpeg.decode_pixel_data(frame, version=2))
    if described["syntax"] == _RLE:
        return _decode_rle(frame, described)
    return _decode_with_gdcm(gdcm, frame, described)


def _decode_rle(frame: bytes, described: dict[str, Any]) -> bytes:
    size = (described[name] for name in ("rows", "columns", "samples", "allocated"))
    rle: Any = import_module("pydicom.pixels.decoders.rle")
    return bytes(rle._rle_decode_frame(frame, *size))


def _decode_with_gdcm(gdcm: Any, frame: bytes, described: dict[str, Any]) -> bytes:  # noqa: ANN401 - no types
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((described["columns"], described["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(described["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if described["samples"] > 1:
        image.SetPlanarConfiguration(described["planar"])
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(described["syntax"])))
    stored = described["stored"]
    image.SetPixelFormat(
        gdcm.PixelFormat(described["samples"], described["allocated"], stored, stored - 1, described["signed"])
    )
    found = image.GetBuffer()
    return found.encode("utf-8", "surrogateescape") if found else b""  # GDCM gives char* as str, or None


if __name__ == "__main__":
    main()
