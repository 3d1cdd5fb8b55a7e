"""DICOM instances at rest in one file that only grows: what was confirmed is there after a crash, in order.

A record is its length and CRC-32 (8 and 4 bytes, big endian) and the instance. A crash can leave an incomplete last
record; it was never confirmed to anybody, and readers stop before it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from service.errors import StageLost

_HEAD = struct.Struct(">QI")


class InstanceFile:
    """Reads the instances of one file, as often as asked; one of them in memory at a time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[bytes]:
        """Every confirmed instance.

        Raises:
            StageLost: the file is gone, or a record before the last one is damaged.
        """
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                while (content := _read(file.read(_HEAD.size), file.read, size - file.tell())) is not None:
                    yield content
        except FileNotFoundError:
            raise StageLost("the stored instances are gone") from None

    def size(self) -> int:
        """Bytes; 0 where it is gone, or holds nothing."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def _read(head: bytes, read: Callable[[int], bytes], left: int) -> bytes | None:
    """One record; None where it is incomplete. Space that was reserved before a crash reads as zeros."""
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    if length == 0 or length > left:
        return None
    content = read(length)
    if zlib.crc32(content) == checksum:
        return content
    if length == left:
        return None
    raise StageLost("a stored instance is damaged")


class InstanceWriter:
    """Appends instances to a file that nobody else may read.

    Args:
        path: the file; created where it is missing.
        named: its name is on disk already, by an earlier `sync`.
    """

    def __init__(self, path: Path, *, named: bool = False) -> None:
        self._path = path
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self.size = os.fstat(descriptor).st_size
        self._synced_name = named

    def add(self, content: bytes) -> None:
        """Append an instance; it is not yet safe. Raises OSError, with the file as it was before."""
        try:
            for piece in (_HEAD.pack(len(content), zlib.crc32(content)), content):
                left = memoryview(piece)
                while left:
                    left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self.size)  # what comes next must not stand behind half a record
            raise
        self.size += _HEAD.size + len(content)

    def sync(self) -> None:
        """Return once everything added is on disk."""
        os.fsync(self._file.fileno())
        if not self._synced_name:
            sync_folder(self._path.parent)
            self._synced_name = True

    def close(self) -> None:
        """Close the file, without `sync`."""
        self._file.close()


def write_instances(path: Path, contents: Iterable[bytes], beside: str) -> int:
    """Write a file that either is complete or does not exist.

    Args:
        path: the file; one that is there is replaced.
        contents: the instances.
        beside: ending of the name that the file has until it is complete, the writer's own.

    Returns:
        Bytes written.
    """
    part = path.with_name(f"{path.name}.{beside}")
    part.unlink(missing_ok=True)
    writer = InstanceWriter(part)
    try:
        for content in contents:
            writer.add(content)
        writer.sync()
        writer.close()
        part.replace(path)
        sync_folder(path.parent)
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    return writer.size


def write_whole(path: Path, content: bytes) -> None:
    """Replace a private file by one that is complete and on disk when this returns."""
    part = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
