"""Instances on their way into the study queue: nothing is confirmed to a sender before it is on disk."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict
from time import monotonic
from types import TracebackType

from service.errors import TooLarge, UnknownJob
from service.instance_file import InstanceWriter
from service.studies.claims import discard
from service.studies.rows import StudyJob, StudyRequest
from service.studies.store import StudyStore


def key_of(request: StudyRequest, site_key: bytes, digest: str = "") -> str:
    """The same for the same wish: 64 hexadecimal digits that tell nothing of the UIDs without the site's key.

    Args:
        request: what is asked for.
        site_key: see `service.site_key`.
        digest: of the instances, where they were uploaded.
    """
    wish = json.dumps([asdict(request), digest], sort_keys=True)
    return hmac.digest(site_key, wish.encode(), "sha256").hex()


class Upload:
    """One HTTP upload; it is dropped unless `submit` returns.

    Args:
        store: the queue.
        request: what is asked for.
        site_key: see `service.site_key`.

    Raises:
        Overloaded: the queue is full.
        TooManyRequests: the holder's share of it is.
    """

    def __init__(self, store: StudyStore, request: StudyRequest, site_key: bytes) -> None:
        self._store, self._request, self._site_key = store, request, site_key
        self._job = store.insert(request, status="receiving")
        self._writer = InstanceWriter(store.folder / f"{self._job}.source")
        self._digests: list[bytes] = []
        self._renewed = monotonic()
        self._submitted = False

    def add(self, content: bytes) -> None:
        """Take an instance.

        Raises:
            UnknownJob: the upload was not continued for longer than a lease.
        """
        self._writer.add(content)
        self._digests.append(hashlib.sha256(content).digest())
        if monotonic() - self._renewed > self._store.lease / 4:
            self._renewed = monotonic()
            if not self._store.keep_open(self._job, "receiving", 0.0, self._writer.size):
                raise UnknownJob("the upload took too long and was dropped")

    def submit(self) -> StudyJob:
        """Queue it; on disk when this returns. The same instances, not yet answered, are the same job."""
        self._writer.sync()
        digest = hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()
        key = key_of(self._request, self._site_key, digest)
        job = self._store.close_upload(self._job, key, self._writer.size)
        self._submitted = True
        return job

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
        if not self._submitted:
            try:
                self._store.delete(self._job)
            except UnknownJob:
                discard(self._store.folder, self._job)  # swept away, but for what was written since


class HeldUpload:
    """Instances that come one by one, each confirmed by itself: a job that is not due while more may come.

    Should this process die, the job becomes due by itself, with every confirmed instance. The file is open only while
    it is written: a sender may bring more series than a process may have open files.

    Args:
        store: the queue.
        request: what is asked for.
        hold: seconds without a further instance after which the job is due.
        max_bytes: most bytes of one job.
        label: see `StudyJob`.

    Raises:
        Overloaded: the queue is full.
        TooManyRequests: the holder's share of it is.
    """

    def __init__(self, store: StudyStore, request: StudyRequest, *, hold: float, max_bytes: int, label: str) -> None:
        self._store, self._hold, self._max_bytes = store, hold, max_bytes
        self.job = store.insert(request, status="queued", label=label, hold=hold)
        self._file, self._size = store.folder / f"{self.job}.source", 0
        try:
            InstanceWriter(self._file).close()
        except OSError:
            store.delete(self.job)  # a row without a file would end among the dead
            raise

    def add(self, content: bytes) -> bool:
        """Take an instance: on disk when this returns True. False where a worker has the job already.

        Raises:
            TooLarge: the job has become too large.
        """
        if self._size + len(content) > self._max_bytes:
            raise TooLarge("the series is too large")
        if not self._store.keep_open(self.job, "queued", self._hold, self._size + len(content)):
            return False
        writer = InstanceWriter(self._file, named=self._size > 0)
        try:
            writer.add(content)
            writer.sync()
        finally:
            writer.close()
        self._size = writer.size
        return True

    def end(self, hold: float) -> None:
        """Nothing more is expected: due after `hold` seconds, unless more comes in spite of it."""
        if self._size:
            self._store.release_held(self.job, hold)
