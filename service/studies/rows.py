"""A study to be answered, as a row: what is asked for, and where it is in its life.

    receiving ──submit──> queued ──claim──> running ──finish──> done
        (an upload)         ^                  │ ├──bury────> dead     (the dead-letter list)
                            └──retry, release──┘ └──lease ran out: anybody's

Stages (`waiting`, `fetched`, `answered`) outlive the claim: whoever runs the job next goes on after the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, Connection, Float, Integer, MetaData, String, Table, Text, select

from service.database import holder_column, lease_columns

StudyStatus = Literal["receiving", "queued", "running", "done", "dead"]
Stage = Literal["waiting", "fetched", "answered"]
ACTIVE = ("receiving", "queued", "running")
FOREVER = 1e12

metadata = MetaData()
studies = Table(
    "studies",
    metadata,
    *lease_columns(),
    holder_column(),
    Column("key", String(64), unique=True),  # of the active ones: who asks twice gets the same job
    Column("stage", String(16), nullable=False, default="waiting"),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("due", Float, nullable=False, index=True),
    Column("expires", Float, nullable=False, default=FOREVER),
    Column("crashes", Integer, nullable=False, default=0),
    Column("begun", Integer, nullable=False, default=0),  # 1 once its worker has turned to it
    Column("again", Integer, nullable=False, default=0),  # asked for once more while it ran
    Column("progress", Float, nullable=False, default=0.0),
    Column("request", Text, nullable=False),
    Column("label", String(12), nullable=False, default=""),
    Column("size", Integer, nullable=False, default=0),
    Column("summary", Text),
    Column("problem", Text),
)


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What is asked for.

    Attributes:
        source: name of the archive to fetch from; empty where the instances were uploaded.
        study: Study Instance UID (0020,000D) to fetch.
        series: Series Instance UID (0020,000E) to fetch.
        target: name of the archive to store the results to; empty: they are kept until the job expires.
        options: everything else (model, method, kinds of object), in the words of whoever answers; JSON values.
        holder: who asks (`service.access.holding`); empty: nobody in particular.
    """

    source: str = ""
    study: str = ""
    series: str = ""
    target: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    holder: str = ""


@dataclass(frozen=True, slots=True)
class StudyJob:
    """A job as it stands. Times in seconds since 1970.

    Attributes:
        id: secret enough to be the only key to the results where nobody is asked who they are.
        status: where it is in its life.
        stage: the last one that is done and on disk.
        created: when it was accepted.
        changed: when its status or stage last changed.
        due: not run before.
        attempts: times that it was claimed since its stage.
        crashes: times that its worker died over it.
        progress: 0..1.
        label: hashed UID of the series, for logs; empty where it is not known.
        size: bytes on disk; of one that is done, of the results kept for whoever asks.
        summary: JSON of the answer once there is one.
        problem: JSON of a Problem: of the last attempt, or why it is dead.
        request: JSON of the `StudyRequest`, without UIDs once it is done.
    """

    id: str
    status: StudyStatus
    stage: Stage
    created: float
    changed: float
    due: float
    attempts: int
    crashes: int
    progress: float
    label: str
    size: int
    summary: str | None
    problem: str | None
    request: str

    def asked(self) -> StudyRequest:
        """What is asked for."""
        return StudyRequest(**json.loads(self.request))


def fresh() -> dict[str, object]:
    """Column values of a job that begins from its start."""
    now = time()
    begin: dict[str, object] = {"status": "queued", "stage": "waiting", "due": now, "changed": now, "expires": FOREVER}
    return begin | {"again": 0, "begun": 0, "attempts": 0, "crashes": 0, "progress": 0.0, "size": 0}


def read_jobs(connection: Connection, which: ColumnElement[bool], limit: int) -> list[StudyJob]:
    """The jobs that are not over and meet a condition, the latest change first."""
    columns = [studies.c[name] for name in StudyJob.__dataclass_fields__]
    query = select(*columns).where(which, studies.c.expires > time())
    return [StudyJob(*row) for row in connection.execute(query.order_by(studies.c.changed.desc()).limit(limit))]
