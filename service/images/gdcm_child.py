"""The process that `service.images.gdcm_process` starts: GDCM, and nothing that it could take down with it.

It runs by its path, without the rest of the service. A request is the length of a JSON text (4 bytes, big endian), the
text, the length of a frame (8 bytes), the frame; the answer is the length of the decoded frame (8 bytes) and the frame,
or the length 0.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

_MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    """Decode until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's image
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    gdcm = import_module("gdcm")
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    answers = sys.stdout.buffer
    answers.write(b"+")
    answers.flush()
    while request := _request(sys.stdin.buffer):
        try:
            frame = _decode(gdcm, *request)
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


def _decode(gdcm: Any, frame: bytes, described: dict[str, Any]) -> bytes:  # noqa: ANN401 - SWIG, without types
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
