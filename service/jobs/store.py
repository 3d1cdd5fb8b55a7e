"""Jobs at rest: an SQL database that survives the process, and that several processes may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Literal

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)

from service.database import Leases, connect, held_by, holder_column, lease_columns, make_tables, new_id
from service.errors import Overloaded, UnknownJob

Status = Literal["queued", "running", "done", "failed"]
ATTEMPTS = 3

_metadata = MetaData()
_jobs = Table(
    "jobs",
    _metadata,
    *lease_columns(),
    holder_column(),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False, index=True),
    Column("request", Text, nullable=False),
    Column("progress", Float, nullable=False, default=0.0),
    Column("answer", Text),
)
_files = Table(
    "job_files",
    _metadata,
    Column("job", String(43), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. Times in seconds since 1970; `answer` is JSON: a Result once done, a Problem once failed."""

    id: str
    status: Status
    created: float
    expires: float
    request: str
    progress: float
    attempts: int
    answer: str | None


class JobStore:
    """The database.

    Args:
        url: SQLAlchemy URL; empty for an SQLite file of this user.
        lease: seconds that a claim holds without being renewed.
        ttl: seconds that a job is kept.
        limit: most jobs.
    """

    def __init__(self, url: str, *, lease: float, ttl: float, limit: int) -> None:
        self._engine = connect(url, "jobs.sqlite")
        self._leases = Leases(self._engine, _jobs, lease)
        self._ttl, self._limit = ttl, limit
        make_tables(self._engine, _metadata)

    def add(self, request: str, files: Sequence[tuple[str, bytes]], holder: str = "") -> Job:
        """Store a new job: its request as JSON, its files by name, and whose it is.

        Raises:
            Overloaded: there are too many.
        """
        now = time()
        job = new_id()
        made = {"id": job, "holder": holder, "status": "queued", "created": now, "expires": now + self._ttl}
        with self._engine.begin() as connection:
            if (connection.scalar(select(func.count()).select_from(_jobs)) or 0) >= self._limit:
                raise Overloaded("too many jobs are stored; delete some, or try again later")
            connection.execute(insert(_jobs).values(**made, request=request))
            rows = [
                {"job": job, "position": place, "name": name, "content": content}
                for place, (name, content) in enumerate(files)
            ]
            connection.execute(insert(_files), rows)
        return self.get(job)

    def get(self, job: str, holder: str | None = None) -> Job:
        """Raises UnknownJob where there is none, it expired, or it is not this holder's (None: whosever)."""
        query = select(*(_jobs.c[name] for name in Job.__dataclass_fields__))
        with self._engine.connect() as connection:
            row = connection.execute(query.where(held_by(_jobs, job, holder), _jobs.c.expires > time())).first()
        if row is None:
            raise UnknownJob("there is no such job; it may have expired or been deleted")
        return Job(*row)

    def files(self, job: str) -> list[tuple[str, bytes]]:
        """Names and contents, in order."""
        query = select(_files.c.name, _files.c.content).where(_files.c.job == job).order_by(_files.c.position)
        with self._engine.connect() as connection:
            return [(row.name, row.content) for row in connection.execute(query)]

    def delete(self, job: str, holder: str | None = None) -> None:
        """Forget a job, whatever it is doing; its worker notices. Raises UnknownJob as `get` does."""
        with self._engine.begin() as connection:
            if not _forget(connection, list(connection.scalars(select(_jobs.c.id).where(held_by(_jobs, job, holder))))):
                raise UnknownJob("there is no such job; it may have expired or been deleted")

    def delete_expired(self) -> int:
        """Forget the jobs whose time is over; returns how many."""
        with self._engine.begin() as connection:
            expired = list(connection.scalars(select(_jobs.c.id).where(_jobs.c.expires <= time())))
            return _forget(connection, expired)

    def waiting(self) -> int:
        """How many jobs are queued."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(_jobs).where(_jobs.c.status == "queued")) or 0

    def claim(self, owner: str) -> Job | None:
        """The oldest job that waits, or whose worker died; None where there is none. It is now `owner`'s."""
        lasting = _jobs.c.expires > time()
        job = self._leases.claim(owner, _jobs.c.status == "queued", _jobs.c.created, {"progress": 0.0}, lasting)
        return None if job is None else self.get(job)

    def renew(self, job: str, owner: str, progress: float) -> bool:
        """Keep the claim, and note progress; False where the job is no longer the owner's: deleted, taken, expired."""
        return self._leases.renew(job, owner, {"progress": progress}, _jobs.c.expires > time())

    def finish(self, job: str, owner: str, status: Literal["done", "failed"], answer: str) -> bool:
        """Store the answer; False where the job is no longer the owner's. Its files are deleted."""
        if not self._leases.update(job, owner, {"status": status, "answer": answer, "progress": 1.0}):
            return False
        with self._engine.begin() as connection:
            connection.execute(delete(_files).where(_files.c.job == job))
        return True

    def release(self, job: str, owner: str) -> None:
        """Put a job back that this process will not finish; the attempt does not count."""
        self._leases.update(job, owner, {"status": "queued", "attempts": _jobs.c.attempts - 1, "progress": 0.0})

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _forget(connection: Connection, jobs: Sequence[str]) -> int:
    connection.execute(delete(_files).where(_files.c.job.in_(jobs)))
    return connection.execute(delete(_jobs).where(_jobs.c.id.in_(jobs))).rowcount
