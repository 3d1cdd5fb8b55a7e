"""Where the images of an archive are: a folder, an object store, a list of addresses, a DICOMweb query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pyarrow.fs import FileSelector, FileSystem, FileType

from service.backfill.arrow import Store as FileStore
from service.backfill.files import MAX_FILE_BYTES, Entry, Folder, SeriesFolders, Source, limited, local_path
from service.dicomweb.archives import Archive
from service.dicomweb.client import fetch_series
from service.dicomweb.multipart import Limits
from service.dicomweb.query import find_series
from service.errors import InvalidParameter, RemoteUnavailable, UnknownSource

_SERIES_LIMITS = Limits(file_bytes=MAX_FILE_BYTES)


@dataclass(frozen=True, slots=True)
class Store:
    """Objects below a URI that Arrow understands: `s3://bucket/prefix`, `gs://`, `hdfs://`, ...

    Attributes:
        uri: its query holds options of the store (`?region=...&endpoint_override=...`). Credentials are taken from
            where the store's own tools take them.
        match: of object names without their folder.
    """

    uri: str
    match: str = "*"
    single = True

    def entries(self) -> Iterator[Entry]:
        """The names of one folder are in memory at a time."""
        store, root = _store(self.uri)
        waiting = [root]
        while waiting:
            for one in store.get_file_info(FileSelector(waiting.pop())):
                if one.type == FileType.Directory:
                    waiting.append(one.path)
                elif one.type == FileType.File and fnmatch(one.base_name, self.match):
                    yield Entry(f"{urlsplit(self.uri).scheme}://{quote(one.path)}")

    def contents(self, key: str) -> Iterator[bytes]:
        """See `Source`."""
        store, _ = _store(self.uri)
        yield _object(store, unquote(key.partition("://")[2]))


@dataclass(frozen=True, slots=True)
class Listed:
    """A text file with an address a line, as an inventory of a large store gives it; `file:` and what `Store` takes."""

    file: str
    single = True

    def entries(self) -> Iterator[Entry]:
        """See `Source`."""
        with Path(self.file).open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield Entry(line.strip())

    def contents(self, key: str) -> Iterator[bytes]:
        """See `Source`."""
        if key.startswith("file://"):
            yield from Folder("").contents(key)
            return
        parts = urlsplit(key)
        store, root = _store(f"{parts.scheme}://{parts.netloc}" + (f"?{parts.query}" if parts.query else ""))
        yield _object(store, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}")


@dataclass(frozen=True, slots=True)
class Query:
    """The series that an archive finds by QIDO-RS; keys are `dicomweb:NAME/studies/UID/series/UID`.

    Attributes:
        name: of the archive in the settings.
        archive: how it is called.
        terms: attributes and their values, as QIDO-RS takes them.
    """

    name: str
    archive: Archive
    terms: Mapping[str, str]
    single = False

    def entries(self) -> Iterator[Entry]:
        """A page of the archive's answer is in memory at a time."""
        for found in find_series(self.archive, self.terms):
            yield Entry(f"dicomweb:{self.name}/studies/{found.study}/series/{found.series}", found.instances)

    def contents(self, key: str) -> Iterator[bytes]:
        """See `Source`."""
        *_, study, _, series = key.split("/")
        return fetch_series(self.archive, study, series, _SERIES_LIMITS)


def open_source(source: str, archives: Mapping[str, Archive], match: str = "*") -> Source:
    """What the command line means by a source.

    Args:
        source: a folder, `@FILE` with an address a line, `dicomweb:NAME?Attribute=value&...`, or a URI.
        archives: that are configured, by name.
        match: of file names; for a folder or a URI.

    Raises:
        InvalidParameter: nothing that is there, or a URI of an unknown kind.
        UnknownSource: no archive of this name.
    """
    if source.startswith("@"):
        if not Path(source[1:]).is_file():
            raise InvalidParameter("the file with the list of addresses is not there")
        return Listed(str(Path(source[1:]).resolve()))
    if source.startswith("dicomweb:"):
        name, _, query = source.removeprefix("dicomweb:").partition("?")
        if name not in archives:
            raise UnknownSource("no such archive is configured; see the setting RADIOLUCENT_ARCHIVES")
        return Query(name, archives[name], dict(parse_qsl(query, strict_parsing=bool(query))))
    if "://" in source and not source.startswith("file://"):
        _store(source)
        return Store(source, match)
    folder = Path(local_path(source) if source.startswith("file://") else source)
    if not folder.is_dir():
        raise InvalidParameter("the source is no folder that is here, no URI, no @FILE and no dicomweb:NAME")
    return Folder(str(folder.resolve()), match)


def of_series(source: Source) -> Source:
    """The same archive by whole series.

    Raises:
        InvalidParameter: a store or a list, whose entries are single files.
    """
    if isinstance(source, Folder):
        return SeriesFolders(source)
    if source.single:
        raise InvalidParameter("series are found by a query, or where each is a folder; a store has neither")
    return source


@cache
def _store(uri: str) -> tuple[FileStore, str]:
    try:
        return FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:  # of Arrow: its errors are these, or subclasses of them
        kind = "is not understood" if isinstance(error, ValueError) else "cannot be reached"
        raise InvalidParameter(f"the address of the store {kind}") from None


def _object(store: FileStore, path: str) -> bytes:
    try:
        with store.open_input_stream(path) as file:
            return limited(file)
    except (OSError, ValueError):
        raise RemoteUnavailable("the object is gone or cannot be read") from None
