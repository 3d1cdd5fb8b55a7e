from __future__ import annotations

import stat
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from service.errors import AlreadyAnswered, InvalidParameter, StudyConflict, UnknownReader, UnknownReading, UnknownStudy
from service.reader_study.cases import read_cases
from service.reader_study.codes import lock_of, new_code
from service.reader_study.freeze import Terms, freeze_cases, open_study, plan_of
from service.reader_study.opinion import ITEMS, Draft, Opinion
from service.reader_study.readings import ReadingStore
from service.reader_study.rows import open_database, readings
from service.reader_study.session import DAY
from service.reader_study.store import StudyStore

RATINGS = dict.fromkeys(ITEMS, 3)


def opinion(place, **values) -> Opinion:
    ratings = RATINGS if place.current.arm == "with" else {}
    return Opinion(**{"diagnosis": "dark", "confidence": 50, "ratings": ratings} | values)


def answer(store: ReadingStore, code: str, **values):
    reader = store.reader(code)
    place = store.begin(reader)
    return store.answer(reader, store.reading(reader, place.current.id), opinion(place, **values))


def test_a_reader_goes_through_both_periods_with_a_washout(engine, make):
    codes = make(engine, washout_days=3)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    assert (reader.name, reader.plan.name) == ("anna", "trial")
    for done in range(6):
        assert store.place(reader).done == done
        answer(store, codes["anna"])
    place = store.begin(reader)
    assert (place.state, place.current, place.done, place.total) == ("washout", None, 6, 12)
    with engine.begin() as connection:  # three days go by
        back = readings.c.answered - 3 * DAY
        connection.execute(update(readings).where(readings.c.answered.is_not(None)).values(answered=back))
    for _ in range(6):
        answer(store, codes["anna"])
    assert store.begin(reader).state == "finished"
    assert store.place(store.reader(codes["ben"])).done == 0
    rows = StudyStore(engine).readings(StudyStore(engine).study("trial"))
    assert [(r.period, r.position) for r in rows["anna"]] == [(p, n) for p in (1, 2) for n in range(1, 7)]
    assert all(r.answered is not None and r.started is not None for r in rows["anna"])


def test_the_clock_of_a_case_starts_once(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    assert store.place(reader).current.started is None
    first = store.begin(reader).current
    time.sleep(0.02)
    assert store.begin(reader).current == first


def test_the_latest_draft_holds_whatever_arrives_last(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    current = store.begin(reader).current
    assert store.save_draft(current, Draft(comment="second", revision=2)) == 2
    assert store.save_draft(current, Draft(comment="first, late", revision=1)) == 2
    kept = store.begin(reader).current
    assert (kept.revision, Opinion.model_validate_json(kept.opinion).comment) == (2, "second")


def test_an_answer_is_final_and_may_be_sent_again(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    place = store.begin(reader)
    said = opinion(place, comment="sure", active_seconds=1e5)
    saved = store.answer(reader, place.current, said)
    assert store.answer(reader, place.current, said) == saved
    with pytest.raises(AlreadyAnswered):
        store.answer(reader, place.current, opinion(place, diagnosis="bright"))
    store.save_draft(place.current, Draft(comment="too late", revision=99))
    kept = Opinion.model_validate_json(store.reading(reader, place.current.id).opinion)
    assert kept.comment == "sure"
    assert 0 < kept.active_seconds < 60  # no more than passed here


def test_of_answers_at_once_one_is_saved(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    place = store.begin(reader)
    outcomes: list[object] = []

    def send(sure: int) -> None:
        try:
            outcomes.append(store.answer(reader, place.current, opinion(place, confidence=sure)).opinion)
        except AlreadyAnswered:
            outcomes.append(None)

    threads = [threading.Thread(target=send, args=(sure,)) for sure in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert [said for said in outcomes if said] == [store.reading(reader, place.current.id).opinion]


def test_nobody_reaches_the_readings_of_another_or_a_case_that_is_not_begun(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    anna, ben = store.reader(codes["anna"]), store.reader(codes["ben"])
    ahead = store.place(anna).current
    with pytest.raises(UnknownReading):
        store.reading(anna, ahead.id)
    store.begin(anna)
    store.reading(anna, ahead.id)
    with pytest.raises(UnknownReading):
        store.reading(ben, ahead.id)


def test_truth_is_told_of_answered_training_cases_only(engine, make):
    codes = make(engine)
    store = ReadingStore(engine)
    reader = store.reader(codes["anna"])
    assert store.truth(reader, store.begin(reader).current) is None
    told = [store.truth(reader, answer(store, codes["anna"])) for _ in range(6)]
    assert all(truth in ("bright", "dark") for truth in told[:2])
    assert told[2:] == [None] * 4


def test_codes_are_hashed_and_can_be_replaced(engine, make):
    codes = make(engine)
    store = StudyStore(engine)
    with engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT * FROM reader_study_readers").fetchall())
    assert not any(code[6:] in stored or code.replace("-", "")[5:] in stored for code in codes.values())
    fresh = new_code()
    store.change_lock(store.study("trial"), "anna", lock_of(fresh))
    assert ReadingStore(engine).reader(fresh).name == "anna"
    for wrong in (codes["anna"], "", fresh[:5] + codes["anna"][5:]):
        with pytest.raises(UnknownReader):
            ReadingStore(engine).reader(wrong)
    with pytest.raises(UnknownStudy):
        store.change_lock(store.study("trial"), "nobody", lock_of(fresh))


def test_making_a_study_goes_on_where_it_was_stopped(engine, tmp_path, pipeline, make):
    folder = tmp_path / "cases"
    store = StudyStore(engine)
    cases = read_cases(folder / "cases.csv", folder, ("bright", "dark", "middle"))
    terms = Terms("stopped", "parallel", 9, 1, ("anna", "ben", "cleo"), "bright")
    plan = plan_of(terms, cases, pipeline)
    assert plan.washout_days == 0  # a parallel study has none
    study = store.add(plan)
    stopped = freeze_cases(store, study, cases, pipeline)
    next(stopped), next(stopped)
    stopped.close()
    kept = store.case_codes(study)
    assert len(kept) == 2
    again = store.add(plan)
    assert again == study
    assert len(list(freeze_cases(store, again, cases, pipeline))) == 4
    assert len(open_study(store, again)) == 3
    with pytest.raises(StudyConflict):
        open_study(store, again)
    assert store.study("stopped").opened is not None
    assert {len(rows) for rows in store.readings(again).values()} == {6}
    with pytest.raises(StudyConflict, match=r"other readers, seed|other seed, readers"):
        store.add(plan.model_copy(update={"seed": 2, "readers": ("anna",)}))


def test_a_case_that_cannot_be_read_is_named_by_its_line(tmp_path, engine, pipeline, make):
    folder = tmp_path / "cases"
    (folder / "john-doe-3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    store = StudyStore(engine)
    cases = read_cases(folder / "cases.csv", folder, ("bright", "dark", "middle"))
    study = store.add(plan_of(Terms("broken", "crossover", 9, 1, ("anna",), "bright"), cases, pipeline))
    with pytest.raises(InvalidParameter, match=r"cases.csv, line 5: the PNG file"):
        list(freeze_cases(store, study, cases, pipeline))
    assert len(store.case_codes(study)) == 3
    with pytest.raises(UnknownReader):  # nobody is let in
        ReadingStore(engine).reader("")


def test_a_region_is_what_readers_and_model_see(tmp_path, engine, pipeline, make):
    folder = tmp_path / "cases"
    (folder / "cases.csv").write_text("file,truth,training,region\njohn-doe-1.png,dark,no,4 6 20 10")
    store = StudyStore(engine)
    cases = read_cases(folder / "cases.csv", folder, ("bright", "dark", "middle"))
    study = store.add(plan_of(Terms("part", "parallel", 0, 1, ("a", "b"), "bright"), cases, pipeline))
    list(freeze_cases(store, study, cases, pipeline))
    (case,) = store.cases(study)
    assert case.answer.region == (0, -5, 20, 20)  # the cropped image, padded to a square
    codes = open_study(store, study)
    readers = ReadingStore(engine)
    layout = readers.layout(readers.reader(codes["a"]), readers.begin(readers.reader(codes["a"])).current)
    assert (layout.width, layout.height, layout.bits) == (20, 10, 8)


def test_a_deleted_study_is_gone_and_others_stay(engine, make):
    codes = make(engine)
    others = make(engine, name="other")
    store = StudyStore(engine)
    store.delete(store.study("trial"))
    with pytest.raises(UnknownStudy):
        store.study("trial")
    with pytest.raises(UnknownReader):
        ReadingStore(engine).reader(codes["anna"])
    answer(ReadingStore(engine), others["anna"])


def test_the_default_database_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    open_database("").dispose()
    file = Path(tmp_path / "radiolucent" / "reader-studies.sqlite")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
