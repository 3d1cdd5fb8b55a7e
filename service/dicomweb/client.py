"""DICOMweb towards archives: WADO-RS in, STOW-RS out, and the DICOM JSON model (PS3.18 10.4, 10.5, annex F).

The requests are made here and not by dicomweb-client, which takes a body that was cut off for a complete series,
gives up a series for one damaged instance, and holds everything that it stores twice in memory.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from service.dicomweb.archives import Archive, request
from service.dicomweb.multipart import DICOM, Limits, MultipartReader, write_multipart
from service.dicomweb.stow_answer import check_stored
from service.errors import (
    BrokenUpload,
    InvalidParameter,
    RemoteMissing,
    RemoteRefused,
    RemoteUnavailable,
    TooLarge,
)
from service.observability import INSTANCES

if TYPE_CHECKING:
    from requests import Response

_T = TypeVar("_T")
UID_PATTERN, UID_LENGTH = r"^[0-9]+(\.[0-9]+)*$", 64  # PS3.5 9.1, but for zeros that lead a component: they occur
_CHUNK = 2**18
_BATCH_BYTES, _BATCH_FILES = 32 * 2**20, 64  # of one STOW-RS request
_ANSWER = Limits(file_bytes=16 * 2**20)  # of an archive to STOW-RS
_PASSING = (401, 403, 404, 408, 425, 429)  # refusals that an operator or time puts right


def check_uid(uid: str) -> str:
    """A UID that may become a part of an address.

    Raises:
        InvalidParameter: it is not numbers with dots between, or too long. (`..` would lead to another address.)
    """
    if len(uid) > UID_LENGTH or not re.fullmatch(UID_PATTERN, uid):
        raise InvalidParameter("a UID is numbers with dots between, at most 64 characters")
    return uid


def fetch_series(archive: Archive, study: str, series: str, limits: Limits) -> Iterator[bytes]:
    """The instances of a series as they are stored, each as soon as it has arrived.

    A connection that breaks is made anew, and what had arrived before is not given again.

    Raises:
        InvalidParameter: a UID that is none.
        RemoteMissing: the archive does not have it, or not yet.
        RemoteRefused: the archive will not give it.
        RemoteUnavailable: the archive failed.
        TooLarge: beyond the limits.
        TooManyImages: beyond the limits.
    """
    url = f"{archive.url.rstrip('/')}/studies/{check_uid(study)}/series/{check_uid(series)}"
    seen: set[bytes] = set()
    for attempt in range(1, archive.attempts + 1):
        try:
            for content in _fetch(archive, url, limits):
                digest = hashlib.sha256(content).digest()
                if digest not in seen:
                    seen.add(digest)
                    INSTANCES.labels("wado", "read").inc()
                    yield content
            if not seen:
                raise RemoteMissing("the archive gives no instance of the series")
            return
        except RemoteUnavailable:
            if attempt == archive.attempts:
                raise
            _pause(archive, attempt)


def store_instances(archive: Archive, contents: Iterable[bytes]) -> int:
    """Store instances, some at a time; those that the archive has already count as stored. Returns how many.

    Raises:
        RemoteRefused: the archive refuses one of them for good.
        RemoteUnavailable: the archive failed; what it has stored so far may be sent again.
    """
    stored = 0
    for batch in _batches(contents):
        stored += _patient(archive, lambda batch=batch: _store(archive, batch))
        INSTANCES.labels("stow", "stored").inc(len(batch))
    return stored


def dicom_json(contents: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The DICOM JSON model of files (PS3.18 annex F), one object each; pixels are InlineBinary (base64)."""
    from pydicom import dcmread

    for content in contents:
        yield dcmread(BytesIO(content)).to_json_dict()


def whole_answer(archive: Archive, url: str, accept: str) -> bytes:
    """The body of a short answer, tried again while the archive fails; empty where it has no content.

    Raises:
        RemoteRefused: the archive will not answer.
        RemoteUnavailable: the archive failed.
        TooLarge: longer than a short answer is.
    """

    def call() -> bytes:
        with request(archive, "GET", url, {"Accept": accept}) as answer:
            if answer.status_code == 204:
                return b""
            _check(answer)
            return _joined(_pieces(answer, archive.total_s), _ANSWER)

    return _patient(archive, call)


def _fetch(archive: Archive, url: str, limits: Limits) -> Iterator[bytes]:
    accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
    with request(archive, "GET", url, {"Accept": accept}) as answer:
        if answer.status_code == 404:
            raise RemoteMissing("the archive answers that it has no such series")
        _check(answer)
        pieces = _pieces(answer, archive.total_s)
        kind = answer.headers.get("Content-Type", "")
        if kind.lower().startswith(DICOM):  # one instance without an envelope, as some archives send it
            yield _joined(pieces, limits)
            return
        try:
            reader = MultipartReader(kind, limits)
            for piece in pieces:
                yield from reader.feed(piece)
            reader.close()
        except BrokenUpload:
            raise RemoteUnavailable("the archive's answer is incomplete or no multipart body") from None


def _store(archive: Archive, batch: list[bytes]) -> int:
    kind, body = write_multipart(batch)
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    url = f"{archive.url.rstrip('/')}/studies"
    with request(archive, "POST", url, headers, b"".join(body)) as answer:
        if answer.status_code not in (200, 202, 409):
            _check(answer)
        said = _joined(_pieces(answer, archive.total_s), _ANSWER)
        check_stored(answer.status_code, said, batch)
    return len(batch)


def _batches(contents: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for content in contents:
        if batch and (len(batch) == _BATCH_FILES or sum(map(len, batch)) + len(content) > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(content)
    if batch:
        yield batch


def _pieces(answer: Response, seconds: float) -> Iterator[bytes]:
    until = time.monotonic() + seconds
    for piece in answer.iter_content(_CHUNK):
        yield piece
        if time.monotonic() > until:
            raise RemoteUnavailable("the archive takes too long")


def _joined(pieces: Iterable[bytes], limits: Limits) -> bytes:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > limits.file_bytes:
            raise TooLarge(f"a file may have at most {limits.file_bytes} bytes")
    return bytes(whole)


def _check(answer: Response) -> None:
    status = answer.status_code
    if status >= 500 or status in _PASSING:
        raise RemoteUnavailable(f"the archive answers with HTTP status {status}")
    if status != 200:
        raise RemoteRefused(f"the archive answers with HTTP status {status}")


def _patient(archive: Archive, call: Callable[[], _T]) -> _T:
    for attempt in range(1, archive.attempts):
        try:
            return call()
        except RemoteUnavailable:
            _pause(archive, attempt)
    return call()


def _pause(archive: Archive, attempt: int) -> None:
    time.sleep(archive.first_delay_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
