"""Many DICOM files in one body: multipart/related (RFC 2387, PS3.18 8.6) in and out, and zip archives in."""

from __future__ import annotations

import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from io import BytesIO

from service.errors import BrokenUpload, TooLarge, TooManyImages

DICOM = "application/dicom"
_MAX_TYPE = 1024  # characters of the content type: email takes quadratic time to parse it
_MAX_HEADERS = 16_384  # bytes of one part's headers; also of what stands before the first part
_CHUNK = 2**20
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others zipfile does not bound what is unpacked at once
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one body may hold.

    Attributes:
        files: most files.
        file_bytes: most bytes of one.
        total_bytes: most bytes of all, unpacked.
    """

    files: int = 4096
    file_bytes: int = 2**30
    total_bytes: int = 2**32


class MultipartReader:
    """Cuts a body into its parts while it arrives: `feed` with every chunk, then `close`.

    Args:
        content_type: of the body; `multipart/related` with a boundary, and `type` not other than application/dicom.
        limits: what the body may hold.

    Raises:
        BrokenUpload: another content type, one of more than 1024 characters, or no boundary.
    """

    def __init__(self, content_type: str, limits: Limits) -> None:
        if len(content_type) > _MAX_TYPE:
            raise BrokenUpload(f"the content type has more than {_MAX_TYPE} characters")
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_boundary("")
        if header.get_content_type() != "multipart/related" or not 1 <= len(boundary) <= 256:
            raise BrokenUpload('the body is not multipart/related; type="application/dicom" with a boundary')
        if str(header.get_param("type", DICOM)).lower() != DICOM:
            raise BrokenUpload("the parts of the body are not application/dicom")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._limits = limits
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
        self._searched = 0
        self._parts, self._total = 0, 0
        self._inside = self._ended = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The parts that this chunk completes.

        Raises:
            BrokenUpload: not multipart, or headers without end.
            TooLarge: one part, or all together.
            TooManyImages: too many parts.
        """
        if self._ended:
            return  # an epilogue (RFC 2046 5.1.1) means nothing
        self._buffer += chunk
        while not self._ended and (end := self._find()) >= 0 and self._is_whole(end):
            before = bytes(self._buffer[:end])
            del self._buffer[: end + len(self._delimiter)]
            self._searched = 0
            if self._inside:
                yield self._content(before)
            self._inside = True
            self._ended = self._buffer.startswith(b"--")
        self._bound()

    def close(self) -> None:
        """Raises BrokenUpload where the body ended before its last delimiter."""
        if not self._ended:
            raise BrokenUpload("the multipart body ends early")

    def _find(self) -> int:
        found = self._buffer.find(self._delimiter, self._searched)
        if found < 0:
            self._searched = max(0, len(self._buffer) - len(self._delimiter) + 1)
        return found

    def _is_whole(self, end: int) -> bool:
        """Whether the two bytes that tell what follows a delimiter have arrived."""
        self._searched = end
        return len(self._buffer) >= end + len(self._delimiter) + 2

    def _content(self, part: bytes) -> bytes:
        """The part without its headers; a part begins with what may follow a delimiter on its line."""
        line, newline, rest = part.partition(b"\r\n")
        if line.strip(b" \t") or not newline:
            raise BrokenUpload("a delimiter of the multipart body is followed by something else")
        if rest.startswith(b"\r\n"):
            content = rest[2:]
        else:
            headers, found, content = rest.partition(b"\r\n\r\n")
            if not found or len(headers) > _MAX_HEADERS:
                raise BrokenUpload("the headers of a part of the multipart body have no end")
        self._parts += 1
        self._total += len(content)
        if self._parts > self._limits.files:
            raise TooManyImages(f"a body may hold at most {self._limits.files} files")
        if self._total > self._limits.total_bytes:
            raise TooLarge(f"the files of a body may have at most {self._limits.total_bytes} bytes together")
        return content

    def _bound(self) -> None:
        allowed = self._limits.file_bytes + _MAX_HEADERS if self._inside else _MAX_HEADERS
        if not self._ended and self._searched > allowed:
            if not self._inside:
                raise BrokenUpload("the multipart body does not begin with its boundary")
            raise TooLarge(f"a file may have at most {self._limits.file_bytes} bytes")


def write_multipart(contents: Iterable[bytes]) -> tuple[str, Iterator[bytes]]:
    """The content type and the body, in pieces, of a multipart/related message of DICOM files."""
    boundary = secrets.token_hex(16)
    return f'multipart/related; type="{DICOM}"; boundary="{boundary}"', _body(contents, boundary.encode())


def _body(contents: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    for content in contents:
        yield b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
        yield content
        yield b"\r\n"
    yield b"--" + boundary + b"--\r\n"


def read_zip(content: bytes, limits: Limits, hold: Callable[[int], None] = lambda size: None) -> Iterator[bytes]:
    """The files of a zip archive, in its order, unpacked into memory one by one; names and folders mean nothing.

    Args:
        content: the archive.
        limits: what it may hold.
        hold: told of bytes before they take memory; what it raises ends the unpacking.

    Raises:
        BrokenUpload: damaged, encrypted, compressed in an unusual way, or an archive in the archive.
        TooLarge: one file, or all together.
        TooManyImages: too many files.
    """
    if content.count(_CENTRAL) > 2 * limits.files:  # before the directory is read: each entry takes memory
        raise TooManyImages(f"an archive may hold at most {limits.files} files")
    try:
        archive = zipfile.ZipFile(BytesIO(content))
    except _ZIP_ERRORS:
        raise BrokenUpload("the zip archive is damaged") from None
    left = limits.total_bytes
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        if len(entries) > limits.files:
            raise TooManyImages(f"an archive may hold at most {limits.files} files")
        for entry in entries:
            unpacked = _unpack(archive, entry, min(left, limits.file_bytes), hold)
            left -= len(unpacked)
            yield unpacked


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, allowed: int, hold: Callable[[int], None]) -> bytes:
    """One file, by what it really unpacks to, whatever its header says."""
    if entry.flag_bits & 1:
        raise BrokenUpload("the zip archive is encrypted")
    if entry.compress_type not in _METHODS:
        raise BrokenUpload("a file of the zip archive is compressed in a way that is not read")
    unpacked = bytearray()
    try:
        with archive.open(entry) as file:
            while len(unpacked) <= allowed and (piece := file.read(_CHUNK)):
                hold(len(piece))
                unpacked += piece
    except _ZIP_ERRORS:
        raise BrokenUpload("a file of the zip archive is damaged") from None
    if len(unpacked) > allowed:
        raise TooLarge("the files of the zip archive unpack to too many bytes")
    if unpacked.startswith(_LOCAL):
        raise BrokenUpload("the zip archive holds another one")
    return bytes(unpacked)
