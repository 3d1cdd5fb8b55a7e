"""The coordinator's side of the database: studies, their cases and readers, and everything that was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time

from sqlalchemy import Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.database import new_id
from service.errors import StudyConflict, UnknownStudy
from service.reader_study.codes import Lock
from service.reader_study.design import Slot
from service.reader_study.pixels import PackedPixels
from service.reader_study.plan import FrozenCase, StudyPlan
from service.reader_study.rows import cases, readers, readings, studies
from service.reader_study.session import Reading
from service.schemas import ImageAnswer

READING = [readings.c[name] for name in Reading.__dataclass_fields__]


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands. Times in seconds since 1970; `opened` is None while cases are still being added."""

    id: str
    plan: StudyPlan
    created: float
    opened: float | None


class StudyStore:
    """What the coordinator does.

    Args:
        engine: see `rows.open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, plan: StudyPlan) -> Study:
        """Begin a study, or find the one that was begun from the same plan.

        Raises:
            StudyConflict: a study of this name exists, and was made from another plan.
        """
        row = {"id": new_id(), "name": plan.name, "plan": plan.model_dump_json(), "created": time()}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(studies).values(row))
        except IntegrityError:
            study = self.study(plan.name)
            if study.plan != plan:
                changed = [name for name, value in study.plan if value != getattr(plan, name)]
                raise StudyConflict(
                    f"there is a study of this name, made with other {', '.join(changed)}: choose another name"
                ) from None
            return study
        return self.study(plan.name)

    def study(self, name: str) -> Study:
        """Raises UnknownStudy where there is none of this name."""
        found = [study for study in self.studies() if study.plan.name == name]
        if not found:
            raise UnknownStudy("there is no such reader study")
        return found[0]

    def studies(self) -> list[Study]:
        """All of them, the oldest first."""
        query = select(studies.c.id, studies.c.plan, studies.c.created, studies.c.opened).order_by(studies.c.created)
        with self._engine.connect() as connection:
            return [
                Study(row.id, StudyPlan.model_validate_json(row.plan), row.created, row.opened)
                for row in connection.execute(query)
            ]

    def add_case(self, study: Study, case: FrozenCase, pixels: PackedPixels) -> None:
        """Store a case; each is durable at once, so that an interrupted `create` goes on after the last one."""
        row = {
            "study": study.id,
            "code": case.code,
            "file_sha256": case.file_sha256,
            "truth": case.truth,
            "training": int(case.training),
            "layout": pixels.layout.model_dump_json(),
            "pixels": pixels.content,
            "answer": case.answer.model_dump_json(),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(cases).values(row))

    def case_codes(self, study: Study) -> set[str]:
        """Codes of the cases that are stored."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(cases.c.code).where(cases.c.study == study.id)))

    def cases(self, study: Study) -> list[FrozenCase]:
        """All cases, by code, without their pixels: nobody needs all images at once."""
        columns = [cases.c[name] for name in ("code", "file_sha256", "truth", "training", "answer")]
        query = select(*columns).where(cases.c.study == study.id).order_by(cases.c.code)
        with self._engine.connect() as connection:
            return [_case(row) for row in connection.execute(query)]

    def open(self, study: Study, locks: Mapping[str, Lock], schedules: Mapping[str, Sequence[Slot]]) -> None:
        """Let the readers in: their locks and schedules, by name, all or nothing.

        Raises:
            StudyConflict: it is open already.
        """
        people = {name: new_id() for name in locks}
        with self._engine.begin() as connection:
            opening = update(studies).where(studies.c.id == study.id, studies.c.opened.is_(None))
            if connection.execute(opening.values(opened=time())).rowcount != 1:
                raise StudyConflict("the study is open already")
            connection.execute(
                insert(readers),
                [{"id": people[name], "study": study.id, "name": name, **_lock(lock)} for name, lock in locks.items()],
            )
            connection.execute(
                insert(readings),
                [
                    {"id": new_id(), "study": study.id, "reader": people[name], **_slot(slot)}
                    for name, slots in schedules.items()
                    for slot in slots
                ],
            )

    def change_lock(self, study: Study, reader: str, lock: Lock) -> None:
        """Replace a reader's lock: the old code no longer opens. Raises UnknownStudy where there is no such reader."""
        change = update(readers).where(readers.c.study == study.id, readers.c.name == reader)
        with self._engine.begin() as connection:
            if connection.execute(change.values(**_lock(lock))).rowcount != 1:
                raise UnknownStudy("the study has no such reader")

    def readings(self, study: Study) -> dict[str, list[Reading]]:
        """The schedule of every reader, by name, with what became of it."""
        query = (
            select(readers.c.name, *READING)
            .join(readings, readings.c.reader == readers.c.id)
            .where(readers.c.study == study.id)
            .order_by(readers.c.name, readings.c.period, readings.c.position)
        )
        found: dict[str, list[Reading]] = {}
        with self._engine.connect() as connection:
            for name, *row in connection.execute(query):
                found.setdefault(name, []).append(reading_of(row))
        return found

    def delete(self, study: Study) -> None:
        """Forget a study: images, readers, answers."""
        with self._engine.begin() as connection:
            for table in (readings, readers, cases):
                connection.execute(delete(table).where(table.c.study == study.id))
            connection.execute(delete(studies).where(studies.c.id == study.id))


def reading_of(row: Sequence[object]) -> Reading:
    """A row of the columns `READING`."""
    values = dict(zip(Reading.__dataclass_fields__, row, strict=True))
    return Reading(**values | {"training": bool(values["training"])})  # pyright: ignore[reportArgumentType]


def _case(row: Row[tuple[object, ...]]) -> FrozenCase:
    answer = ImageAnswer.model_validate_json(row.answer)
    return FrozenCase(row.code, row.file_sha256, row.truth, bool(row.training), answer)


def _lock(lock: Lock) -> dict[str, str]:
    return {"selector": lock.selector, "digest": lock.digest}


def _slot(slot: Slot) -> dict[str, object]:
    return {
        "case": slot.case,
        "arm": slot.arm,
        "period": slot.period,
        "position": slot.position,
        "training": int(slot.training),
    }
