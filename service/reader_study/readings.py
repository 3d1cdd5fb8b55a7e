"""The reader's side of the database: one reader, one case at a time, and nothing that was said is lost or changed."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TypeVar

from sqlalchemy import Column, Engine, select, update

from service.errors import AlreadyAnswered, UnknownReader, UnknownReading
from service.reader_study.codes import NOBODY, Lock, lock_of
from service.reader_study.opinion import Draft, Opinion
from service.reader_study.pixels import PixelLayout
from service.reader_study.plan import StudyPlan
from service.reader_study.rows import cases, readers, readings, studies
from service.reader_study.session import Place, Reading, place_of
from service.reader_study.store import READING, reading_of
from service.schemas import ImageAnswer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reader:
    """Whoever has the code; `name` is what the coordinator calls them."""

    id: str
    name: str
    study: str
    plan: StudyPlan


class ReadingStore:
    """What readers do. Every method takes the reader: nobody reaches another's readings.

    Args:
        engine: see `rows.open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reader(self, code: str) -> Reader:
        """Raises UnknownReader where the code opens nothing; that takes as long as where it does."""
        columns = (readers.c.id, readers.c.name, readers.c.study, readers.c.selector, readers.c.digest, studies.c.plan)
        query = select(*columns).join(studies, studies.c.id == readers.c.study)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(readers.c.selector == lock_of(code).selector)).first()
        lock = NOBODY if row is None else Lock(row.selector, row.digest)
        if not lock.opens(code) or row is None:
            raise UnknownReader("this code opens no reader study; the coordinator can make a new one")
        return Reader(row.id, row.name, row.study, StudyPlan.model_validate_json(row.plan))

    def place(self, reader: Reader) -> Place:
        """Where the reader is now."""
        mine = readings.c.reader == reader.id
        query = select(*READING).where(mine).order_by(readings.c.period, readings.c.position)
        with self._engine.connect() as connection:
            rows = [reading_of(tuple(row)) for row in connection.execute(query)]
        return place_of(rows, reader.plan.washout_days, time())

    def begin(self, reader: Reader) -> Place:
        """Show the case that is next: its clock starts, unless it was shown before."""
        place = self.place(reader)
        if place.current is None or place.current.started is not None:
            return place
        start = update(readings).where(readings.c.id == place.current.id, readings.c.started.is_(None))
        with self._engine.begin() as connection:
            connection.execute(start.values(started=time()))
        return self.place(reader)

    def reading(self, reader: Reader, reading: str) -> Reading:
        """Raises UnknownReading where it is not this reader's, or was not begun."""
        mine = (readings.c.id == reading, readings.c.reader == reader.id, readings.c.started.is_not(None))
        with self._engine.connect() as connection:
            row = connection.execute(select(*READING).where(*mine)).first()
        if row is None:
            raise UnknownReading("there is no such reading, or it has not begun")
        return reading_of(tuple(row))

    def pixels(self, reader: Reader, reading: Reading) -> bytes:
        """The image, in the format of zlib; see `PackedPixels`."""
        return self._of_case(reader, reading, cases.c.pixels)

    def layout(self, reader: Reader, reading: Reading) -> PixelLayout:
        """How to read the pixels."""
        return PixelLayout.model_validate_json(self._of_case(reader, reading, cases.c.layout))

    def answer_of_model(self, reader: Reader, reading: Reading) -> ImageAnswer | None:
        """What the model said of the case; None in the arm without explanation."""
        if reading.arm == "without":
            return None
        return ImageAnswer.model_validate_json(self._of_case(reader, reading, cases.c.answer))

    def truth(self, reader: Reader, reading: Reading) -> str | None:
        """The class of a training case that is answered, as feedback; None of any other."""
        if not reading.training or reading.answered is None:
            return None
        return self._of_case(reader, reading, cases.c.truth)

    def save_draft(self, reading: Reading, draft: Draft) -> int:
        """Keep what is filled in, unless a later draft or the answer is there; returns the revision that is kept."""
        opinion = Opinion(**draft.model_dump(exclude={"revision"}))
        older = (readings.c.id == reading.id, readings.c.answered.is_(None), readings.c.revision < draft.revision)
        with self._engine.begin() as connection:
            connection.execute(
                update(readings).where(*older).values(revision=draft.revision, opinion=opinion.model_dump_json())
            )
        with self._engine.connect() as connection:
            return connection.execute(select(readings.c.revision).where(readings.c.id == reading.id)).scalar_one()

    def answer(self, reader: Reader, reading: Reading, opinion: Opinion) -> Reading:
        """Save the final word. Sent again it changes nothing.

        Active time is at most what passed here since the case was first shown.

        Raises:
            AlreadyAnswered: the answer that is there says something else.
        """
        now = time()
        passed = now - (reading.started or now)
        kept = opinion.model_copy(update={"active_seconds": min(opinion.active_seconds, passed)})
        open_one = update(readings).where(readings.c.id == reading.id, readings.c.answered.is_(None))
        with self._engine.begin() as connection:
            connection.execute(open_one.values(answered=now, opinion=kept.model_dump_json()))
        saved = self.reading(reader, reading.id)
        if not Opinion.model_validate_json(saved.opinion).says(opinion):
            raise AlreadyAnswered("this case was answered before, with another opinion; the first answer holds")
        return saved

    def _of_case(self, reader: Reader, reading: Reading, column: Column[T]) -> T:
        this = (cases.c.study == reader.study, cases.c.code == reading.case)
        with self._engine.connect() as connection:
            return connection.execute(select(column).where(*this)).scalar_one()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
