"""Reader studies at rest: four tables, in SQLite or PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Engine,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from service.database import connect, make_tables

_ID = String(43)
_metadata = MetaData()

studies = Table(
    "reader_studies",
    _metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("plan", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("opened", Float),  # when readers could begin; before, cases are still being added
)
cases = Table(
    "reader_study_cases",
    _metadata,
    Column("study", _ID, ForeignKey("reader_studies.id", ondelete="CASCADE"), primary_key=True),
    Column("code", String(16), primary_key=True),
    Column("file_sha256", String(64), nullable=False),
    Column("truth", Text, nullable=False),
    Column("training", Integer, nullable=False),
    Column("layout", Text, nullable=False),
    Column("pixels", LargeBinary, nullable=False),
    Column("answer", Text, nullable=False),
)
readers = Table(
    "reader_study_readers",
    _metadata,
    Column("id", _ID, primary_key=True),
    Column("study", _ID, ForeignKey("reader_studies.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(24), nullable=False),
    Column("selector", String(5), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("study", "name"),
)
readings = Table(
    "reader_study_readings",
    _metadata,
    Column("id", _ID, primary_key=True),
    Column("study", _ID, nullable=False),
    Column("reader", _ID, ForeignKey("reader_study_readers.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("case", String(16), nullable=False),
    Column("arm", String(8), nullable=False),
    Column("period", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("training", Integer, nullable=False),
    Column("started", Float),
    Column("answered", Float),
    Column("revision", Integer, nullable=False, default=0),
    Column("opinion", Text, nullable=False, default=""),
    ForeignKeyConstraint(["study", "case"], ["reader_study_cases.study", "reader_study_cases.code"]),
    UniqueConstraint("reader", "period", "position"),
)


def open_database(url: str) -> Engine:
    """Connect, and make the tables where they are missing.

    Args:
        url: SQLAlchemy URL; empty for an SQLite file in the user's state folder.
    """
    engine = connect(url, "reader-studies.sqlite")
    make_tables(engine, _metadata)
    return engine
