from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from service.errors import Overloaded, UnknownJob
from service.jobs.store import JobStore

FILES = [("a.png", b"one"), ("b.png", b"two")]

pytestmark = pytest.mark.usefixtures("database")


def open_store(path: Path, *, lease: float = 5, ttl: float = 60, limit: int = 10) -> JobStore:
    return JobStore(path.with_name(f"{path.name}.url").read_text(), lease=lease, ttl=ttl, limit=limit)


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path)
    yield store
    store.close()


def test_a_job_waits_runs_and_is_done(store):
    job = store.add("{}", FILES)
    assert (job.status, job.progress, job.answer) == ("queued", 0.0, None)
    assert store.waiting() == 1
    claimed = store.claim("me")
    assert (claimed.id, claimed.status, claimed.attempts) == (job.id, "running", 1)
    assert store.files(job.id) == FILES
    assert store.renew(job.id, "me", 0.5)
    assert store.get(job.id).progress == 0.5
    assert store.finish(job.id, "me", "done", "{}")
    assert store.get(job.id).status == "done"
    assert store.files(job.id) == []  # images are not kept longer than they are needed
    assert store.claim("me") is None


def test_the_oldest_job_goes_first_and_nobody_takes_a_running_one(store):
    first, second = store.add("{}", FILES), store.add("{}", FILES)
    assert [store.claim("a").id, store.claim("b").id] == [first.id, second.id]
    assert store.claim("c") is None


def test_many_claimants_never_share_a_job(tmp_path):
    stores = [open_store(tmp_path, limit=100) for _ in range(4)]
    made = {stores[0].add("{}", FILES).id for _ in range(20)}
    taken: list[str] = []

    def work(store: JobStore, owner: str) -> None:
        while (job := store.claim(owner)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(store, str(n))) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for store in stores:
        store.close()
    assert sorted(taken) == sorted(made)


def test_a_clock_that_jumps_back_leaves_no_job_to_a_dead_worker(store, monkeypatch):
    job, now = store.add("{}", FILES), time.time()
    monkeypatch.setattr("service.database.time", lambda: now + 3000)
    assert store.claim("dead").id == job.id
    monkeypatch.setattr("service.database.time", lambda: now)
    assert store.claim("alive").id == job.id
    assert not store.renew(job.id, "dead", 0.5)
    assert store.claim("third") is None


def test_a_clock_that_jumps_ahead_leaves_a_renewed_job_to_its_worker(store, monkeypatch):
    job, now = store.add("{}", FILES), time.time()
    store.claim("me")
    monkeypatch.setattr("service.database.time", lambda: now + 30)
    assert store.renew(job.id, "me", 0.5)
    assert store.claim("other") is None
    assert store.finish(job.id, "me", "done", "{}")


def test_a_lease_that_ran_out_is_anybodys_and_the_first_owner_notices(tmp_path):
    store = open_store(tmp_path, lease=0.2)
    job = store.add("{}", FILES)
    store.claim("dead")
    assert store.claim("alive") is None
    time.sleep(0.3)
    again = store.claim("alive")
    assert (again.id, again.attempts) == (job.id, 2)
    assert not store.renew(job.id, "dead", 0.9)
    assert not store.finish(job.id, "dead", "done", "{}")
    assert store.renew(job.id, "alive", 0.1)
    store.close()


def test_a_released_job_waits_again_and_its_attempt_does_not_count(store):
    job = store.add("{}", FILES)
    store.claim("me")
    store.release(job.id, "me")
    assert (store.get(job.id).status, store.get(job.id).attempts) == ("queued", 0)


def test_a_deleted_job_is_gone_whatever_it_was_doing(store):
    job = store.add("{}", FILES)
    store.claim("me")
    store.delete(job.id)
    assert not store.renew(job.id, "me", 0.5)
    assert not store.finish(job.id, "me", "done", "{}")
    for call in (store.get, store.delete):
        with pytest.raises(UnknownJob):
            call(job.id)
    assert store.files(job.id) == []


def test_expired_jobs_are_not_shown_and_then_deleted(tmp_path):
    store = open_store(tmp_path, ttl=0.1)
    job = store.add("{}", FILES)
    time.sleep(0.2)
    with pytest.raises(UnknownJob):
        store.get(job.id)
    assert store.claim("me") is None
    assert store.delete_expired() == 1
    assert store.files(job.id) == []
    store.close()


def test_a_running_job_that_expires_is_lost_to_its_worker(store, monkeypatch):
    job, now = store.add("{}", FILES), time.time()
    store.claim("me")
    monkeypatch.setattr("service.jobs.store.time", lambda: now + 59)
    assert store.renew(job.id, "me", 0.5)
    monkeypatch.setattr("service.jobs.store.time", lambda: now + 61)
    assert not store.renew(job.id, "me", 0.5)


def test_there_is_a_limit(tmp_path):
    store = open_store(tmp_path, limit=1)
    store.add("{}", FILES)
    with pytest.raises(Overloaded):
        store.add("{}", FILES)
    store.close()


def test_deleted_images_are_overwritten_in_the_file(tmp_path):
    store = open_store(tmp_path)
    secret = b"pixels of a patient " * 500
    job = store.add("{}", [("a.png", secret)])
    store.delete(job.id)
    store.close()
    assert all(secret[:40] not in path.read_bytes() for path in tmp_path.iterdir())


def test_the_default_file_is_private_to_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = JobStore("", lease=5, ttl=60, limit=10)
    job = store.add("{}", FILES)
    store.close()
    file = tmp_path / "radiolucent" / "jobs.sqlite"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    again = JobStore("", lease=5, ttl=60, limit=10)
    assert again.get(job.id).status == "queued"
    again.close()


def test_a_job_is_its_holders_and_does_not_exist_for_others(store):
    job = store.add("{}", FILES, "key:a")
    assert store.get(job.id, "key:a") == store.get(job.id) == job
    for holder in ("key:b", ""):
        with pytest.raises(UnknownJob):
            store.get(job.id, holder)
        with pytest.raises(UnknownJob):
            store.delete(job.id, holder)
    assert store.files(job.id) == FILES
    store.delete(job.id, "key:a")
    assert store.files(job.id) == []


def test_a_database_of_an_earlier_version_is_taken_over(tmp_path, database):
    with closing(open_store(tmp_path)) as store:
        job = store.add("{}", FILES)
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN holder"))
    engine.dispose()
    with ThreadPoolExecutor(4) as pool:  # as many processes that start at once
        for store in pool.map(lambda _: open_store(tmp_path), range(4)):
            assert store.get(job.id, "") == job
            store.close()
