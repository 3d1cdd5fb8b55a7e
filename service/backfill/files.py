"""Entries of an archive, and those of a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote, unquote_to_bytes

from service.errors import RadiolucentError, RemoteUnavailable, TooLarge

MAX_FILE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Entry:
    """What is fetched at once: `key` is its address in the source, `images` how many it is expected to hold."""

    key: str
    images: int = 1


class Source(Protocol):
    """An archive; it is sent to the tasks that read it.

    `single` says that an entry is one file, small enough to be fetched ahead of its turn.
    """

    @property
    def single(self) -> bool: ...  # noqa: D102

    def entries(self) -> Iterator[Entry]:
        """All there is, never all of it in memory."""
        ...

    def contents(self, key: str) -> Iterator[bytes]:
        """The files of an entry, one in memory at a time.

        Raises:
            RemoteUnavailable, RemoteRefused: it cannot be read.
            TooLarge: beyond `MAX_FILE_BYTES`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """Files below a local folder, in whatever order the system gives them; keys are `file:` URIs.

    Attributes:
        root: absolute.
        match: of file names, as the shell matches them.
    """

    root: str
    match: str = "*"
    single = True

    def entries(self) -> Iterator[Entry]:
        """Links to folders are not followed."""
        waiting = [self.root]
        while waiting:
            with os.scandir(waiting.pop()) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(one.path)
                    elif one.is_file() and fnmatch(one.name, self.match):
                        yield Entry("file://" + quote(os.fsencode(one.path)))

    def contents(self, key: str) -> Iterator[bytes]:
        """See `Source`."""
        try:
            with Path(local_path(key)).open("rb") as file:
                content = limited(file)
        except OSError:
            raise RemoteUnavailable("the file is gone or cannot be read") from None
        yield content


@dataclass(frozen=True, slots=True)
class SeriesFolders:
    """The folders of a folder: all files that lie in one are fetched as one entry."""

    files: Folder
    single = False

    def entries(self) -> Iterator[Entry]:
        """The order of the files decides nothing, and those of one folder come one after another."""
        for key, found in groupby(self.files.entries(), lambda entry: entry.key.rpartition("/")[0] + "/"):
            yield Entry(key, sum(1 for _ in found))

    def contents(self, key: str) -> Iterator[bytes]:
        """See `Source`."""
        with os.scandir(local_path(key)) as found:
            paths = sorted(one.path for one in found if one.is_file() and fnmatch(one.name, self.files.match))
        for path in paths:
            yield from self.files.contents("file://" + quote(os.fsencode(path)))


def local_path(key: str) -> str:
    """Of a `file:` URI; names need not be UTF-8."""
    return os.fsdecode(unquote_to_bytes(key.removeprefix("file://")))


def limited(file: BinaryIO) -> bytes:
    """The whole file.

    Raises:
        TooLarge: beyond `MAX_FILE_BYTES`.
    """
    content = bytes(file.read(MAX_FILE_BYTES + 1))
    if len(content) > MAX_FILE_BYTES:
        raise TooLarge(f"a file may have at most {MAX_FILE_BYTES} bytes")
    return content


def failed_row(error: Exception) -> dict[str, object]:
    """`problem` and `detail` of an error; only our own errors' texts are free of names and values."""
    if isinstance(error, RadiolucentError):
        return {"problem": error.kind, "detail": str(error)}
    return {"problem": "internal", "detail": type(error).__name__}
