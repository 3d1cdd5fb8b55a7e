"""The study queue at rest: rows in the jobs' manner, instances in files beside them, both on disk before a yes.

A row is always written before its file and deleted before it, so that a file without a row is an orphan, whatever died.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import time
from typing import Literal

from sqlalchemy import ColumnElement, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from service.database import connect, held_by, make_tables, new_id, private_folder
from service.errors import Overloaded, TooManyRequests, UnknownJob
from service.instance_file import InstanceFile
from service.studies.claims import StudyClaims, discard
from service.studies.rows import ACTIVE, StudyJob, StudyRequest, StudyStatus, fresh, metadata, read_jobs, studies

_row = studies.c
_TRIES = 8  # the job that was asked for before may end between two statements
_LATER_S = 60.0  # until a caller with too many studies may ask again


class StudyStore:
    """The database and the folder.

    Args:
        url: SQLAlchemy URL; empty for an SQLite file of this user.
        folder: for instances, private; None for one in the user's state folder. Every worker must see the same.
        lease: seconds that a claim or an unfinished upload holds without being renewed.
        ttl: seconds that a job is kept once it is done or dead.
        limit: most jobs that are not yet done or dead; one holder's may be half of what the others leave.
        max_bytes: most bytes of instances on disk; one holder's may be half of what the others leave.
    """

    def __init__(
        self, url: str, folder: Path | None, *, lease: float, ttl: float, limit: int, max_bytes: int = 2**36
    ) -> None:
        self._engine = connect(url, "studies.sqlite")
        self.folder = folder or private_folder("studies")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.lease, self._limit, self._max_bytes = lease, limit, max_bytes
        self.claims = StudyClaims(self._engine, self.folder, lease=lease, ttl=ttl)
        make_tables(self._engine, metadata)

    def submit(self, request: StudyRequest, key: str, label: str = "") -> StudyJob:
        """Accept a series to be fetched; it is on disk when this returns.

        Asked for again before it was begun, it is the same job; asked for again while it runs, it is the same job,
        which runs once more afterwards, because the series may have grown.

        Args:
            request: what to fetch.
            key: the same for the same wish (`service.studies.upload.key_of`).
            label: see `StudyJob`.

        Raises:
            Overloaded: there are too many.
            TooManyRequests: there are too many of this holder's.
        """
        for _ in range(_TRIES):
            if (job := self._join(key)) is not None:
                return self.get(job)
            try:
                return self.get(self.insert(request, status="queued", key=key, label=label))
            except IntegrityError:
                continue
        raise Overloaded("the same series is being asked for too often")

    def insert(
        self,
        request: StudyRequest,
        *,
        status: Literal["receiving", "queued"],
        key: str | None = None,
        label: str = "",
        hold: float = 0.0,
    ) -> str:
        """A new row, due after `hold` seconds; a `receiving` one that is not renewed for a lease is swept away.

        Raises:
            Overloaded: there are too many.
            TooManyRequests: there are too many of this holder's.
            IntegrityError: the key is taken.
        """
        job, now = new_id(), time()
        values = {"id": job, "key": key, "status": status, "created": now, "changed": now, "due": now + hold}
        values |= {"lease": now + self.lease, "request": json.dumps(asdict(request)), "label": label}
        values |= {"stage": "waiting" if request.source else "fetched", "holder": request.holder}
        with self._engine.begin() as connection:
            connection.execute(insert(studies).values(**values))  # and then count: SQLite has one writer at a time
            filled = select(func.count().filter(_row.status.in_(ACTIVE)), func.coalesce(func.sum(_row.size), 0))
            count, size = connection.execute(filled).one()
            if count > self._limit or size > self._max_bytes:
                raise Overloaded("too many studies are waiting; try again later")
            own, own_size = connection.execute(filled.where(_row.holder == request.holder)).one()
            if own - 1 > self._limit - count or own_size > self._max_bytes - size:
                raise TooManyRequests("too many studies of this caller are waiting; try again later", _LATER_S)
        return job

    def keep_open(self, job: str, status: Literal["receiving", "queued"], hold: float, size: int) -> bool:
        """Put off what is being received: not due for `hold` seconds. False where it was taken or is gone."""
        now = time()
        return self._unclaimed(job, status, {"lease": now + self.lease, "due": now + hold, "size": size})

    def release_held(self, job: str, hold: float) -> None:
        """Make what was received due after `hold` seconds; nothing where it was taken already."""
        self._unclaimed(job, "queued", {"due": time() + hold})

    def close_upload(self, job: str, key: str, size: int) -> StudyJob:
        """Queue what was received; returns the earlier job where the same was uploaded and is not answered yet.

        Raises:
            UnknownJob: it was taken too long over, and swept away.
        """
        values = {"status": "queued", "key": key, "due": time(), "changed": time(), "size": size}
        for _ in range(_TRIES):
            with self._engine.connect() as connection:
                earlier = connection.scalar(select(_row.id).where(_row.key == key))
            try:
                if earlier is not None:
                    found = self.get(earlier)
                    self.delete(job)
                    return found
                if not self._unclaimed(job, "receiving", values):
                    raise UnknownJob("the upload took too long and was dropped")
            except IntegrityError:
                continue
            return self.get(job)
        raise Overloaded("the same study is being uploaded too often")

    def get(self, job: str, holder: str | None = None) -> StudyJob:
        """Raises UnknownJob where there is none, it expired, or it is not this holder's (None: whosever)."""
        with self._engine.connect() as connection:
            found = read_jobs(connection, held_by(studies, job, holder), 1)
        if not found:
            raise UnknownJob("there is no such job; it may have expired or been deleted")
        return found[0]

    def listing(self, status: StudyStatus | None = None, limit: int = 100) -> list[StudyJob]:
        """Jobs, the latest change first; with `dead`, the dead-letter list."""
        with self._engine.connect() as connection:
            return read_jobs(connection, _row.status == status if status else _row.status != "", limit)

    def counts(self) -> dict[StudyStatus, int]:
        """How many jobs there are of each status."""
        query = select(_row.status, func.count()).group_by(_row.status)
        with self._engine.connect() as connection:
            counted: dict[str, int] = {row[0]: row[1] for row in connection.execute(query)}
        return {status: counted.get(status, 0) for status in (*ACTIVE, "done", "dead")}

    def results(self, job: str) -> InstanceFile:
        """The objects made, where they were not stored anywhere."""
        return self.claims.file(job, "results")

    def delete(self, job: str, holder: str | None = None) -> None:
        """Forget a job, whatever it is doing; its worker notices. Raises UnknownJob as `get` does."""
        if not self._forget(held_by(studies, job, holder)):
            raise UnknownJob("there is no such job; it may have expired or been deleted")

    def requeue(self, job: str) -> StudyJob:
        """Give a dead job that can be fetched again another life. Raises UnknownJob for any other."""
        if not self.get(job).asked().source or not self._unclaimed(job, "dead", fresh()):
            raise UnknownJob("there is no such job among the dead ones that can be fetched again")
        return self.get(job)

    def sweep(self) -> int:
        """Forget what expired and uploads that nobody finished; delete files without a use. Returns how many."""
        now = time()
        forgotten = self._forget(or_(_row.expires <= now, and_(_row.status == "receiving", _row.lease < now)))
        files = list(self.folder.iterdir())  # before the rows: a row is written before its file
        with self._engine.connect() as connection:
            rows = connection.execute(select(_row.id, _row.status, _row.size))
            known: dict[str, tuple[str, int]] = {row[0]: (row[1], row[2]) for row in rows}
        useless = [file for file in files if not _of_use(file.name, known)]
        for file in useless:
            file.unlink(missing_ok=True)
        return forgotten + len(useless)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _join(self, key: str) -> str | None:
        """The active job of this key, told to run again where it has begun."""
        begun = or_(_row.status == "running", _row.stage != "waiting")
        again = update(studies).where(_row.key == key).values(again=case((begun, 1), else_=_row.again))
        with self._engine.begin() as connection:
            if connection.execute(again).rowcount == 0:
                return None
            return connection.scalar(select(_row.id).where(_row.key == key))

    def _unclaimed(self, job: str, status: str, values: Mapping[str, object]) -> bool:
        waiting = update(studies).where(_row.id == job, _row.status == status)
        with self._engine.begin() as connection:
            return connection.execute(waiting.values(**values)).rowcount == 1

    def _forget(self, which: ColumnElement[bool]) -> int:
        with self._engine.begin() as connection:
            jobs = list(connection.scalars(delete(studies).where(which).returning(_row.id)))
        for job in jobs:
            discard(self.folder, job)
        return len(jobs)


def _of_use(name: str, known: Mapping[str, tuple[str, int]]) -> bool:
    """Whether a file belongs to a job that still needs it: one that died after its last commit left some behind."""
    job, _, rest = name.partition(".")
    if job not in known:
        return False
    status, size = known[job]
    return status in ACTIVE or (status == "done" and rest == "results" and size > 0)
