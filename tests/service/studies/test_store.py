from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import Overloaded, StageLost, TooLarge, TooManyRequests, UnknownJob
from service.instance_file import InstanceFile, InstanceWriter, write_instances
from service.observability import hashed_uid
from service.site_key import read_site_key
from service.studies.rows import StudyRequest
from service.studies.store import StudyStore
from service.studies.upload import HeldUpload, Upload, key_of

KEY = b"site key"
SERIES = StudyRequest("pacs", "1.2.3", "1.2.3.4", "pacs")
UPLOADED = StudyRequest(target="pacs")

pytestmark = pytest.mark.usefixtures("database")


def open_store(path: Path, *, lease: float = 5, ttl: float = 60, limit: int = 10, max_bytes: int = 2**20) -> StudyStore:
    url = path.with_name(f"{path.name}.url").read_text()
    return StudyStore(url, path / "studies", lease=lease, ttl=ttl, limit=limit, max_bytes=max_bytes)


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path)
    yield store
    store.close()


def submit(store: StudyStore, request: StudyRequest = SERIES):
    return store.submit(request, key_of(request, KEY), hashed_uid(request.series, KEY))


def upload(store: StudyStore, *contents: bytes, request: StudyRequest = UPLOADED):
    with Upload(store, request, KEY) as receiving:
        for content in contents:
            receiving.add(content)
        return receiving.submit()


def files(store: StudyStore) -> list[str]:
    return sorted(file.name.partition(".")[2] for file in store.folder.iterdir())


def test_a_series_waits_is_fetched_answered_and_done(store):
    job = submit(store)
    assert (job.status, job.stage, job.label) == ("queued", "waiting", hashed_uid("1.2.3.4", KEY))
    assert job.asked() == SERIES
    claims, claimed = store.claims, store.claims.claim("me")
    assert (claimed.id, claimed.status, claimed.attempts, claimed.crashes) == (job.id, "running", 1, 0)
    assert claims.advance(job.id, "me", "fetched", "source", [b"one", b"two"])
    assert claims.advance(job.id, "me", "answered", "results", [b"report"], '{"label": "x"}')
    assert list(claims.file(job.id, "source")) == [b"one", b"two"]
    assert list(store.results(job.id)) == [b"report"]
    assert store.get(job.id).stage == "answered"
    assert claims.finish(job.id, "me")
    done = store.get(job.id)
    assert (done.status, done.progress, done.summary) == ("done", 1.0, '{"label": "x"}')
    assert files(store) == []  # images are not kept longer than they are needed
    assert "1.2.3" not in done.request


def test_the_same_wish_is_the_same_job_until_it_has_ended(store):
    first = submit(store)
    assert submit(store).id == first.id
    assert submit(store, StudyRequest("pacs", "1.2.3", "1.2.3.5", "pacs")).id != first.id
    store.claims.claim("me")
    store.claims.finish(first.id, "me")
    assert submit(store).id != first.id


def test_a_series_asked_for_while_it_runs_runs_once_more(store):
    job = submit(store)
    store.claims.claim("me")
    store.claims.advance(job.id, "me", "fetched", "source", [b"half of it"])
    assert submit(store).id == job.id
    assert store.claims.finish(job.id, "me")
    again = store.claims.claim("me")
    assert (again.id, again.stage, again.attempts) == (job.id, "waiting", 1)
    assert store.claims.finish(job.id, "me")
    assert store.get(job.id).status == "done"


def test_many_who_ask_at_once_get_one_job(tmp_path):
    stores = [open_store(tmp_path) for _ in range(4)]
    made: list[str] = []
    threads = [threading.Thread(target=lambda each=each: made.append(submit(each).id)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 4 and len(set(made)) == 1
    for store in stores:
        store.close()


def test_a_dead_worker_is_noticed_counted_and_has_nothing_more_to_say(tmp_path):
    store = open_store(tmp_path, lease=0.6)
    job = submit(store)
    store.claims.claim("dead")
    store.claims.begin(job.id, "dead")
    store.claims.advance(job.id, "dead", "fetched", "source", [b"one"])
    assert store.claims.claim("alive") is None
    time.sleep(0.7)
    again = store.claims.claim("alive")
    assert (again.id, again.stage, again.attempts, again.crashes) == (job.id, "fetched", 2, 1)
    assert not store.claims.begin(job.id, "dead")
    assert not store.claims.renew(job.id, "dead", 0.5)
    assert not store.claims.advance(job.id, "dead", "answered", "results", [b"late"])
    assert not store.claims.finish(job.id, "dead")
    assert not store.claims.bury(job.id, "dead", "{}")
    assert not store.claims.retry(job.id, "dead", 0, "{}")
    store.claims.release(job.id, "dead")
    assert store.get(job.id).status == "running"
    assert store.claims.renew(job.id, "alive", 0.5)
    time.sleep(0.7)
    assert store.claims.claim("third").crashes == 1  # the second worker had not turned to it
    store.close()


def test_a_failed_job_waits_for_its_turn_and_does_not_block_others(store):
    first = submit(store)
    store.claims.claim("me")
    assert store.claims.retry(first.id, "me", 0.3, "{}")
    second = upload(store, b"other")
    assert store.claims.claim("me").id == second.id
    assert store.claims.claim("me") is None
    time.sleep(0.35)
    assert store.claims.claim("me").id == first.id


def test_dead_letters_are_listed_with_their_reason_and_can_be_fetched_again(store):
    job = submit(store)
    store.claims.claim("me")
    store.claims.advance(job.id, "me", "fetched", "source", [b"one"])
    assert store.claims.bury(job.id, "me", '{"title": "why"}')
    assert [(dead.id, dead.problem) for dead in store.listing("dead")] == [(job.id, '{"title": "why"}')]
    assert files(store) == []
    assert store.counts() == {"receiving": 0, "queued": 0, "running": 0, "done": 0, "dead": 1}
    revived = store.requeue(job.id)
    assert (revived.status, revived.stage, revived.attempts) == ("queued", "waiting", 0)
    with pytest.raises(UnknownJob):
        store.requeue(job.id)


def test_a_dead_upload_cannot_come_back(store):
    job = upload(store, b"one")
    store.claims.claim("me")
    store.claims.bury(job.id, "me", "{}")
    with pytest.raises(UnknownJob):
        store.requeue(job.id)


def test_a_released_job_waits_again_and_its_attempt_does_not_count(store):
    job = submit(store)
    store.claims.claim("me")
    store.claims.release(job.id, "me")
    assert (store.get(job.id).status, store.get(job.id).attempts) == ("queued", 0)
    assert store.claims.claim("me").id == job.id


def test_an_upload_is_a_job_only_once_it_is_complete(store):
    with Upload(store, UPLOADED, KEY) as receiving:
        receiving.add(b"one")
        assert store.claims.claim("me") is None
        assert store.counts()["receiving"] == 1
        job = receiving.submit()
    claimed = store.claims.claim("me")
    assert (claimed.id, claimed.stage) == (job.id, "fetched")
    assert list(store.claims.file(job.id, "source")) == [b"one"]


def test_a_broken_upload_leaves_nothing(store):
    def fail():
        with Upload(store, UPLOADED, KEY) as receiving:
            receiving.add(b"one")
            raise OSError

    with pytest.raises(OSError):
        fail()
    assert files(store) == [] and store.listing() == []


def test_the_same_instances_in_any_order_are_the_same_job(store):
    first = upload(store, b"one", b"two")
    assert upload(store, b"two", b"one").id == first.id
    assert upload(store, b"one").id != first.id
    assert len(files(store)) == 2


def test_an_upload_that_nobody_finishes_is_swept_away(tmp_path):
    store = open_store(tmp_path, lease=0.2)
    with Upload(store, UPLOADED, KEY) as stuck:
        stuck.add(b"one")
        assert store.sweep() == 0
        time.sleep(0.3)
        assert store.sweep() == 1
        assert files(store) == []
        with pytest.raises(UnknownJob):
            stuck.submit()
    assert store.listing() == []
    store.close()


def test_a_slow_upload_stays(tmp_path):
    store = open_store(tmp_path, lease=1.0)
    with Upload(store, UPLOADED, KEY) as receiving:
        for number in range(6):
            time.sleep(0.25)
            receiving.add(b"%d" % number)
            store.sweep()
        assert len(list(store.claims.file(receiving.submit().id, "source"))) == 6
    store.close()


def test_what_died_after_its_last_commit_is_swept_away_and_live_files_stay(store):
    job = upload(store, b"one")
    other = submit(store)
    assert store.claims.claim("me").id == job.id
    store.claims.finish(job.id, "me")
    for name in (
        f"{job.id}.source",
        f"{job.id}.results",
        "nobody.source",
        "nobody.results.owner",
        f"{other.id}.source",
    ):
        write_instances(store.folder / name, [b"x"], "w")
    assert store.sweep() == 4
    assert [file.name for file in store.folder.iterdir()] == [f"{other.id}.source"]


def test_results_that_are_stored_nowhere_stay_until_the_job_expires(tmp_path):
    store = open_store(tmp_path, ttl=0.3)
    job = upload(store, b"one", request=StudyRequest())
    store.claims.claim("me")
    store.claims.advance(job.id, "me", "answered", "results", [b"report"], "{}")
    assert store.claims.finish(job.id, "me", kept=store.results(job.id).size())
    store.sweep()
    assert list(store.results(job.id)) == [b"report"] and files(store) == ["results"]
    time.sleep(0.35)
    with pytest.raises(UnknownJob):
        store.get(job.id)
    store.sweep()
    assert files(store) == []
    store.close()


def test_a_deleted_job_is_gone_whatever_it_was_doing(store):
    job = upload(store, b"one")
    store.claims.claim("me")
    store.delete(job.id)
    assert not store.claims.renew(job.id, "me", 0.5)
    assert files(store) == []
    for call in (store.get, store.delete):
        with pytest.raises(UnknownJob):
            call(job.id)


def test_there_is_a_limit_of_jobs_and_of_bytes(tmp_path):
    store = open_store(tmp_path, limit=1, max_bytes=100)
    job = upload(store, bytes(120))
    with pytest.raises(Overloaded):
        submit(store)
    assert [each.id for each in store.listing()] == [job.id]
    store.delete(job.id)
    submit(store)
    store.close()


def test_one_holder_has_no_more_than_half_of_the_queue_and_of_its_bytes(tmp_path):
    store = open_store(tmp_path, limit=4, max_bytes=100)
    mine = [replace(SERIES, series=f"1.2.{number}", holder="key:a") for number in range(3)]
    for request in mine[:2]:
        submit(store, request)
    with pytest.raises(TooManyRequests):
        submit(store, mine[2])
    assert submit(store, mine[0]).id in {job.id for job in store.listing()}  # the same wish is the same job
    others = upload(store, bytes(60), request=replace(UPLOADED, holder="key:b"))
    with pytest.raises(TooManyRequests):
        upload(store, b"one", request=replace(UPLOADED, holder="key:b"))
    assert len(store.listing()) == 3
    store.delete(others.id)
    submit(store, replace(SERIES, holder="key:c"))
    store.close()


def fill(store: StudyStore, holder: str, size: int = 0) -> int:
    """How many jobs of so many bytes a holder finds room for."""
    for number in range(100):
        try:
            if size:
                upload(store, bytes([number]) * size, request=replace(UPLOADED, holder=holder))
            else:
                submit(store, replace(SERIES, series=f"1.{number}", holder=holder))
        except (TooManyRequests, Overloaded):
            return number
    raise AssertionError


@pytest.mark.parametrize(("limit", "max_bytes", "size"), [(15, 2**20, 0), (100, 1500, 92)])  # 100 bytes in its file
def test_a_holder_has_half_of_what_the_others_leave(tmp_path, limit, max_bytes, size):
    store = open_store(tmp_path, limit=limit, max_bytes=max_bytes)
    assert [fill(store, holder, size) for holder in ("", "key:a", "key:b", "c-store:10.0.0.1")] == [8, 4, 2, 1]
    store.close()


def test_instances_that_come_one_by_one_hold_the_job_back(store):
    held = HeldUpload(store, UPLOADED, hold=30, max_bytes=1000, label="")
    assert held.add(b"one")
    assert store.claims.claim("me") is None
    assert held.add(b"two")
    held.end(0)
    assert store.claims.claim("me").id == held.job
    assert list(store.claims.file(held.job, "source")) == [b"one", b"two"]


def test_a_job_whose_receiver_died_becomes_due_with_all_that_was_confirmed(tmp_path):
    store = open_store(tmp_path)
    held = HeldUpload(store, UPLOADED, hold=0.2, max_bytes=1000, label="")
    held.add(b"one")
    with (store.folder / f"{held.job}.source").open("ab") as file:
        file.write(b"\0\0\0\0\0\0\0\x09")  # what a kill leaves of the next one
    time.sleep(0.3)
    claimed = store.claims.claim("me")
    assert list(store.claims.file(claimed.id, "source")) == [b"one"]
    assert not held.add(b"two")  # too late: it must become another job
    assert store.get(claimed.id).status == "running"
    store.close()


def test_a_series_may_not_grow_without_bound(store):
    held = HeldUpload(store, UPLOADED, hold=30, max_bytes=100, label="")
    with pytest.raises(TooLarge):
        held.add(bytes(101))
    assert held.add(bytes(20))


def test_an_incomplete_last_record_is_not_read_and_damage_before_it_is_noticed(tmp_path):
    file = tmp_path / "instances"
    writer = InstanceWriter(file)
    for content in (b"first", b"second", b"third"):
        writer.add(content)
    writer.sync()
    writer.close()
    whole = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert list(InstanceFile(file)) == [b"first", b"second", b"third"][: (cut >= 17) + (cut >= 35)]
    file.write_bytes(whole + bytes(100))
    assert len(list(InstanceFile(file))) == 3
    file.write_bytes(whole.replace(b"second", b"sECond"))
    with pytest.raises(StageLost):
        list(InstanceFile(file))
    file.unlink()
    with pytest.raises(StageLost):
        list(InstanceFile(file))


def test_a_full_disk_leaves_no_half_record_behind(tmp_path):
    file, code = (
        tmp_path / "instances",
        """
import resource, signal, sys
from pathlib import Path
from service.instance_file import InstanceWriter
writer = InstanceWriter(Path(sys.argv[1]))
writer.add(b"first")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 1000))
try:
    writer.add(bytes(200))
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    writer.add(b"second")
""",
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert list(InstanceFile(file)) == [b"first", b"second"]


def test_a_file_of_a_stage_is_whole_or_absent(tmp_path):
    def breaking():
        yield b"one"
        raise ValueError

    with pytest.raises(ValueError):
        write_instances(tmp_path / "x.source", breaking(), "me")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_private_and_the_default_place_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = StudyStore("", None, lease=5, ttl=60, limit=10)
    upload(store, b"one")
    root = tmp_path / "radiolucent"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "studies")] == [0o700, 0o700]
    assert stat.S_IMODE((root / "studies.sqlite").stat().st_mode) == 0o600
    assert [stat.S_IMODE(file.stat().st_mode) for file in store.folder.iterdir()] == [0o600]
    store.close()


def test_a_commit_is_flushed_to_disk(store):
    """What a crash of the machine needs cannot be tested otherwise."""
    asked, flushed = {"sqlite": ("PRAGMA synchronous", 2), "postgresql": ("SHOW synchronous_commit", "on")}[
        store._engine.dialect.name
    ]
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql(asked).scalar() == flushed


def test_the_site_key_is_made_once_and_hides_uids(tmp_path):
    file = tmp_path / "site.key"
    key = read_site_key(file)
    assert len(key) == 32 and read_site_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(list(tmp_path.iterdir())) == 1
    assert hashed_uid("1.2.3", key) == hashed_uid("1.2.3", key) != hashed_uid("1.2.4", key)
    assert hashed_uid("1.2.3", key) != hashed_uid("1.2.3", b"other")
    assert len(hashed_uid("1.2.3", key)) == 12


def test_options_travel_with_the_request(store):
    request = StudyRequest("pacs", "1.2", "1.3", "", {"model": "m", "kinds": ["report"]})
    job = submit(store, request)
    assert job.asked() == request
    assert key_of(request, KEY) != key_of(StudyRequest("pacs", "1.2", "1.3"), KEY)
    assert json.loads(job.request)["options"]["kinds"] == ["report"]


def test_what_two_callers_ask_for_are_two_jobs_each_its_own(store):
    mine, theirs = (submit(store, replace(SERIES, holder=holder)) for holder in ("key:a", "key:b"))
    assert mine.id != theirs.id
    assert submit(store, replace(SERIES, holder="key:a")).id == mine.id
    assert store.get(mine.id, "key:a").id == mine.id
    with pytest.raises(UnknownJob):
        store.get(mine.id, "key:b")
    with pytest.raises(UnknownJob):
        store.delete(mine.id, "key:b")
    assert len(store.listing()) == 2
