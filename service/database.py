"""What every table at rest has in common: the database, its private place, and rows that one worker holds at a time.

A row is claimed by one UPDATE whose condition only one claimant can meet, and held by a lease that its worker renews;
a lease that ran out belongs to a worker that died, and the row is anybody's again.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    or_,
    select,
    text,
)
from sqlalchemy import update as update_rows
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.schema import CreateColumn

from service.errors import DatabaseUnusable

_FAR = 10  # leases ahead: none is that long, so that the clock went back since it was written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL = "53100"  # PostgreSQL's SQLSTATE
_PATIENCE_S = 10  # for another's lock on SQLite's file
_CANDIDATES = 8  # rows looked at for one claim: others may take the first ones


def lease_columns() -> tuple[Column[str], Column[str], Column[int], Column[str], Column[float]]:
    """New columns `id`, `status`, `attempts`, `owner` and `lease` (seconds since 1970), which `Leases` works on."""
    return (
        Column("id", String(43), primary_key=True),
        Column("status", String(16), nullable=False, index=True),
        Column("attempts", Integer, nullable=False, default=0),
        Column("owner", String(43)),
        Column("lease", Float, nullable=False, default=0.0),
    )


def holder_column() -> Column[str]:
    """A new column `holder`: who asked for the row (`service.access.holding`), in databases of old as well."""
    return Column("holder", String(80), nullable=False, server_default="")


def held_by(table: Table, row: str, holder: str | None) -> ColumnElement[bool]:
    """The row of this id, where it is this holder's; None: whosever."""
    named = table.c.id == row
    return named if holder is None else named & (table.c.holder == holder)


def new_id() -> str:
    """An id that nobody guesses; where nobody is asked who they are, it is all that guards the row's answer."""
    return secrets.token_urlsafe(32)


class Leases:
    """Claims on the rows of a table that has `lease_columns`.

    Args:
        engine: the database.
        table: whose rows are claimed.
        seconds: that a claim holds without being renewed.
    """

    def __init__(self, engine: Engine, table: Table, seconds: float) -> None:
        self._engine, self._table, self._seconds = engine, table, seconds

    def claim(
        self,
        owner: str,
        waiting: ColumnElement[bool],
        order: ColumnElement[float],
        values: Mapping[str, object],
        also: ColumnElement[bool] | None = None,
    ) -> str | None:
        """Take the first row that waits, or whose worker died; None where there is none. It is now `owner`'s.

        Args:
            owner: who claims.
            waiting: which rows nobody works on and may be taken.
            order: which goes first.
            values: further columns to set.
            also: what must hold of the row of a dead worker, too.
        """
        now, table = time(), self._table
        void = (table.c.lease < now) | (table.c.lease > now + _FAR * self._seconds)
        free = or_(waiting, (table.c.status == "running") & void)
        free = free if also is None else free & also
        with self._engine.connect() as connection:
            candidates = list(
                connection.scalars(select(table.c.id).where(free).order_by(order).limit(_CANDIDATES)),
            )
        taken = {"status": "running", "owner": owner, "lease": now + self._seconds, "attempts": table.c.attempts + 1}
        for candidate in candidates:
            claim = update_rows(table).where(table.c.id == candidate, free).values(**values, **taken)
            with self._engine.begin() as connection:
                if connection.execute(claim).rowcount == 1:
                    return candidate
        return None

    def renew(
        self, row: str, owner: str, values: Mapping[str, object], also: ColumnElement[bool] | None = None
    ) -> bool:
        """Keep the claim and set columns; False where the row is no longer the owner's: deleted, or taken.

        `also` must hold of it, too.
        """
        return self.update(row, owner, {"lease": time() + self._seconds, **values}, also)

    def update(
        self, row: str, owner: str, values: Mapping[str, object], also: ColumnElement[bool] | None = None
    ) -> bool:
        """Set columns; False where the row is no longer the owner's, or `also` does not hold of it."""
        table = self._table
        mine = update_rows(table).where(table.c.id == row, table.c.owner == owner, table.c.status == "running")
        mine = mine if also is None else mine.where(also)
        with self._engine.begin() as connection:
            return connection.execute(mine.values(**values)).rowcount == 1


def connect(url: str, file: str) -> Engine:
    """Open a database.

    Args:
        url: SQLAlchemy URL; empty for an SQLite file of this user.
        file: its name in the user's state folder.

    Raises:
        DatabaseUnusable: the URL cannot be read, or its driver is not there.
        OSError: there can be no such file.
    """
    try:
        engine = create_engine(url or f"sqlite:///{_private_file(file)}")
    except ArgumentError:  # its text may quote the URL, passwords included
        raise DatabaseUnusable("the URL of a database is none that SQLAlchemy reads") from None
    except ModuleNotFoundError as error:
        raise DatabaseUnusable(f"{_shown(make_url(url))} needs the package {error.name}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def make_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are missing, and the columns that an earlier version of the service did not know.

    Processes that start together may each find them so, and one be first.

    Raises:
        DatabaseUnusable: it cannot be reached, or lets nobody make tables.
    """
    try:
        _make_tables(engine, metadata)
    except DBAPIError as error:
        raise DatabaseUnusable(f"{_shown(engine.url)} cannot be used: {' '.join(str(error.orig).split())}") from None


def _shown(url: URL) -> str:
    """Without the password."""
    return url.render_as_string(hide_password=True)


def _make_tables(engine: Engine, metadata: MetaData) -> None:
    for table in metadata.sorted_tables:
        try:
            table.create(engine, checkfirst=True)
        except DBAPIError:
            if not inspect(engine).has_table(table.name):
                raise
        for column in table.columns:
            if column.name not in _columns(engine, table):
                _add_column(engine, table, column)


def _columns(engine: Engine, table: Table) -> set[str]:
    return {found["name"] for found in inspect(engine).get_columns(table.name)}


def _add_column(engine: Engine, table: Table, column: Column[Any]) -> None:
    words = f"ALTER TABLE {table.name} ADD COLUMN {CreateColumn(column).compile(engine)}"
    try:
        with engine.begin() as connection:
            connection.execute(text(words))
    except DBAPIError:
        if column.name not in _columns(engine, table):  # else another process was faster
            raise


def is_storage_full(error: BaseException) -> bool:
    """Whether a file, SQLite or PostgreSQL had no room left on the disk."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    cause = error.orig if isinstance(error, DBAPIError) else None
    full = isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full or getattr(cause, "sqlstate", None) == _DISK_FULL


def private_folder(name: str = "") -> Path:
    """`radiolucent/<name>` in the user's state folder (XDG), readable by nobody else: it holds images."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = state / "radiolucent"
    for each in (folder, folder / name):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / name


def _prepare_sqlite(connection: object, record: object) -> None:
    """Readers beside a writer, patience for a lock, deleted images overwritten, and a commit that outlives the power.

    `synchronous=FULL` flushes the log with every commit; SQLite may have been built with less.
    """
    cursor: sqlite3.Cursor = connection.cursor()  # pyright: ignore[reportAttributeAccessIssue] - DBAPI, untyped
    cursor.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE_S}")
    _write_ahead(cursor)
    for pragma in ("secure_delete=ON", "foreign_keys=ON", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Change a new file to write-ahead logging; where several do so at once, SQLite refuses instead of waiting."""
    until = monotonic() + _PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(0.01)
        else:
            return


def _private_file(name: str) -> Path:
    file = private_folder() / name
    file.touch(mode=0o600)
    file.chmod(0o600)
    return file
