"""What a worker does to the rows and files of the study queue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import time
from typing import Literal

from sqlalchemy import Engine, and_, case, update

from service.database import Leases
from service.instance_file import InstanceFile, write_instances
from service.studies.rows import Stage, StudyJob, fresh, read_jobs, studies

_row = studies.c
Name = Literal["source", "results"]


class StudyClaims:
    """Claims on jobs, and the files of their stages. Whoever lost a claim is told so by False, and must stop.

    Args:
        engine: the database.
        folder: of the files.
        lease: seconds that a claim holds without being renewed.
        ttl: seconds that a job is kept once it is done or dead.
    """

    def __init__(self, engine: Engine, folder: Path, *, lease: float, ttl: float) -> None:
        self._engine, self._folder, self._ttl = engine, folder, ttl
        self._leases = Leases(engine, studies, lease)

    def claim(self, owner: str) -> StudyJob | None:
        """The job that has been due longest, or whose worker died; None where there is none. It is now `owner`'s."""
        waiting = and_(_row.status == "queued", _row.due <= time())
        crashes = case((_row.status == "running", _row.crashes + _row.begun), else_=_row.crashes)
        values = {"crashes": crashes, "begun": 0, "changed": time()}
        job = self._leases.claim(owner, waiting, _row.due, values)
        if job is None:
            return None
        with self._engine.connect() as connection:
            found = read_jobs(connection, _row.id == job, 1)
        return found[0] if found else None  # deleted since

    def begin(self, job: str, owner: str) -> bool:
        """Turn to it: from now on it is to blame when the worker dies."""
        return self._leases.renew(job, owner, {"begun": 1})

    def renew(self, job: str, owner: str, progress: float) -> bool:
        """Keep the claim, and note progress, 0..1."""
        return self._leases.renew(job, owner, {"progress": progress})

    def file(self, job: str, name: Name) -> InstanceFile:
        """The instances to answer for, or the objects made; they need not exist."""
        return InstanceFile(self._folder / f"{job}.{name}")

    def advance(
        self, job: str, owner: str, stage: Stage, name: Name, contents: Iterable[bytes], summary: str | None = None
    ) -> bool:
        """Write the instances of a stage, wholly or not at all, then note that it is done.

        Args:
            job: which.
            owner: whose.
            stage: the one that is done with this.
            name: of the file.
            contents: its instances.
            summary: JSON of the answer, where there is one.
        """
        size = write_instances(self._folder / f"{job}.{name}", contents, owner)
        total = _row.size + size if name == "results" else size
        values: dict[str, object] = {"stage": stage, "size": total, "changed": time(), "attempts": 1}
        return self._leases.renew(job, owner, values if summary is None else values | {"summary": summary})

    def finish(self, job: str, owner: str, kept: int = 0) -> bool:
        """It is done, or waits again where it was asked for once more while it ran.

        Its files go, and the UIDs in its row.

        Args:
            job: which.
            owner: whose.
            kept: bytes of results that were not stored anywhere and stay until the job expires.
        """
        ended: dict[str, object] = {"status": "done", "progress": 1.0, "problem": None, "request": "{}", "size": kept}
        return self._end(job, owner, ended)

    def bury(self, job: str, owner: str, problem: str) -> bool:
        """Move it to the dead-letter list with its reason, JSON of a Problem; its files go."""
        return self._end(job, owner, {"status": "dead", "problem": problem, "size": 0})

    def retry(self, job: str, owner: str, delay: float, problem: str, stage: Stage | None = None) -> bool:
        """Queue it again after `delay` seconds, at an earlier stage where one is given."""
        values: dict[str, object] = {"status": "queued", "due": time() + delay, "problem": problem, "changed": time()}
        return self._leases.update(job, owner, values if stage is None else values | {"stage": stage})

    def release(self, job: str, owner: str) -> None:
        """Put a job back that this process will not finish; the attempt does not count."""
        values = {"status": "queued", "due": time(), "changed": time(), "attempts": _row.attempts - 1}
        self._leases.update(job, owner, values)

    def _end(self, job: str, owner: str, ended: dict[str, object]) -> bool:
        mine = update(studies).where(_row.id == job, _row.owner == owner, _row.status == "running")
        over = {"key": None, "expires": time() + self._ttl, "changed": time()}
        with self._engine.begin() as connection:
            if connection.execute(mine.where(_row.again == 1).values(**fresh())).rowcount == 1:
                return True  # the next run writes over its files
            ours = connection.execute(mine.values(**ended, **over)).rowcount == 1
        if ours:
            discard(self._folder, job, *(("source",) if ended["size"] else ()))
        return ours


def discard(folder: Path, job: str, *names: Name) -> None:
    """Delete the files of a job that have one of the names; all where none is given."""
    for file in folder.glob(f"{job}.*"):
        if not names or file.name.split(".")[1] in names:
            file.unlink(missing_ok=True)
