from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import study_worker
from orthanc import INSTALLED, Orthanc
from study_worker import PATIENCE, open_store

from service.dicomweb.archives import Archive
from service.dicomweb.client import store_instances
from service.errors import CorruptImage, RemoteMissing, RemoteRefused, RemoteUnavailable
from service.studies.patience import Patience
from service.studies.queue import Made, Steps, StudyWorker
from service.studies.rows import StudyRequest
from service.studies.store import StudyStore
from service.studies.upload import Upload, key_of
from tests.dicom_writers import classic_mr, saved

ROOT = Path(__file__).resolve().parents[3]
KEY = b"site key"
QUICK = Patience(attempts=3, away=4, crashes=2, first_s=0.05, longest_s=0.2)


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path)
    yield store
    store.close()


def submit(store: StudyStore, name: str, target: str = "pacs"):
    request = StudyRequest("pacs", "study", name, target)
    return store.submit(request, key_of(request, KEY), name[:12])


class Recorder:
    """Steps that do nothing but note what was asked, and fail as they are told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.stored: list[bytes] = []
        self.failures: dict[tuple[str, str], list[Exception]] = {}
        self.objects: list[bytes] = [b"report", b"map"]

    def steps(self) -> Steps:
        return Steps(self.fetch, self.answer, self.store)

    def note(self, step: str, name: str) -> None:
        self.calls.append((step, name))
        waiting = self.failures.get((step, name))
        if waiting:
            raise waiting.pop(0)

    def fetch(self, request: StudyRequest) -> Iterator[bytes]:
        yield b"one"
        self.note("fetch", request.series)
        yield b"two"

    async def answer(self, request, source, handle) -> Made:
        assert list(source) in ([b"one", b"two"], [b"uploaded"])
        handle.progress(0.5)
        self.note("answer", request.series)
        return Made(iter(self.objects), '{"label": "x"}')

    def store(self, request: StudyRequest, results: Iterable[bytes]) -> None:
        self.note("store", request.series)
        self.stored += results


def work(
    store: StudyStore, recorder: Recorder, patience: Patience = QUICK, lanes: int = 1, seconds: float = 20
) -> None:
    """Run a worker until nothing waits."""

    async def run() -> None:
        worker = StudyWorker(store, recorder.steps(), patience, lanes)
        worker.start()
        until = time.monotonic() + seconds
        while any(store.counts()[status] for status in ("queued", "running")):
            assert time.monotonic() < until, store.counts()
            await asyncio.sleep(0.05)
        await worker.stop()

    asyncio.run(run())


def test_a_study_goes_through_its_stages(store):
    recorder, job = Recorder(), submit(store, "a")
    work(store, recorder)
    done = store.get(job.id)
    assert (done.status, done.stage, done.summary) == ("done", "answered", '{"label": "x"}')
    assert recorder.calls == [("fetch", "a"), ("answer", "a"), ("store", "a")]
    assert recorder.stored == [b"report", b"map"]
    assert list(store.folder.iterdir()) == []


def test_an_upload_is_not_fetched_and_results_without_a_target_are_kept(store):
    recorder = Recorder()
    with Upload(store, StudyRequest(), KEY) as upload:
        upload.add(b"uploaded")
        job = upload.submit()
    work(store, recorder)
    assert recorder.calls == [("answer", "")]
    assert list(store.results(job.id)) == [b"report", b"map"]
    assert [file.name for file in store.folder.iterdir()] == [f"{job.id}.results"]


def test_what_is_stored_begins_at_once_and_what_is_due_again_when_it_is(store, monkeypatch):
    monkeypatch.setattr("service.idle._LOOK_S", 3600.0)
    recorder = Recorder()
    recorder.failures = {("fetch", "a"): [RemoteUnavailable("the archive is away")]}

    async def run() -> None:
        worker = StudyWorker(store, recorder.steps(), QUICK)
        worker.start()
        await asyncio.sleep(0.3)  # it has looked, and rests
        job = submit(store, "a").id
        worker.look()
        until = time.monotonic() + 20
        while store.get(job).status != "done":
            assert time.monotonic() < until, store.counts()
            await asyncio.sleep(0.05)
        await worker.stop()

    asyncio.run(run())
    assert [step for step, _ in recorder.calls] == ["fetch", "fetch", "answer", "store"]


def test_a_study_that_no_model_fits_is_done_and_stores_nothing(store):
    recorder = Recorder()
    recorder.objects = []
    job = submit(store, "a")
    work(store, recorder)
    assert store.get(job.id).status == "done" and store.get(job.id).size == 0
    assert recorder.calls == [("fetch", "a"), ("answer", "a")]


def test_what_passes_is_tried_again_from_the_stage_that_failed(store):
    recorder, job = Recorder(), submit(store, "a")
    recorder.failures = {
        ("fetch", "a"): [RemoteUnavailable()],
        ("answer", "a"): [MemoryError()],
        ("store", "a"): [RemoteUnavailable()],
    }
    work(store, recorder)
    done = store.get(job.id)
    assert (done.status, done.attempts, done.problem) == ("done", 2, None)
    assert [step for step, _ in recorder.calls] == ["fetch", "fetch", "answer", "answer", "store", "store"]
    assert recorder.stored == [b"report", b"map"]


def test_what_never_passes_ends_in_the_dead_letters_without_blocking_others(store):
    recorder = Recorder()
    bad, good = submit(store, "bad"), submit(store, "good")
    recorder.failures = {("fetch", "bad"): [RemoteUnavailable("the archive is away") for _ in range(9)]}
    work(store, recorder)
    dead = store.get(bad.id)
    assert (dead.status, dead.attempts) == ("dead", QUICK.away)
    assert json.loads(dead.problem)["detail"] == "the archive is away"
    assert store.get(good.id).status == "done"
    assert recorder.calls.index(("store", "good")) < len(recorder.calls) - 1  # it did not wait for the bad one
    assert list(store.folder.iterdir()) == []


def test_a_fault_of_ours_is_not_tried_as_often_and_every_stage_counts_anew(store):
    recorder, job = Recorder(), submit(store, "a")
    recorder.failures = {
        ("fetch", "a"): [RemoteUnavailable() for _ in range(QUICK.away - 1)],
        ("answer", "a"): [ValueError() for _ in range(9)],
    }
    work(store, recorder)
    assert store.get(job.id).status == "dead"
    assert Counter(step for step, _ in recorder.calls) == {"fetch": QUICK.away, "answer": QUICK.attempts}


def test_what_the_archive_does_not_have_is_waited_for_some_minutes_and_no_night(store):
    recorder, job = Recorder(), submit(store, "a")
    recorder.failures = {("fetch", "a"): [RemoteMissing() for _ in range(9)]}
    work(store, recorder)
    assert (store.get(job.id).status, len(recorder.calls)) == ("dead", QUICK.attempts)
    patience = Patience()
    waited = [patience.delay(attempt) for attempt in range(1, patience.attempts)]
    assert patience.ends(RemoteMissing(), patience.attempts) and 120 < sum(waited) < 300


@pytest.mark.parametrize("error", [RemoteRefused("no"), CorruptImage("no")])
def test_what_cannot_pass_is_dead_at_once(store, error):
    recorder, job = Recorder(), submit(store, "a")
    recorder.failures = {("answer", "a"): [error]}
    work(store, recorder)
    assert (store.get(job.id).status, store.get(job.id).attempts) == ("dead", 1)


def test_a_lost_stage_is_fetched_again(store):
    job = submit(store, "a")
    store.claims.claim("me")
    store.claims.advance(job.id, "me", "fetched", "source", [b"one", b"two"])
    store.claims.release(job.id, "me")
    (store.folder / f"{job.id}.source").unlink()
    recorder = Recorder()
    work(store, recorder)
    assert store.get(job.id).status == "done"
    assert [step for step, _ in recorder.calls] == ["fetch", "answer", "store"]


def test_the_log_tells_what_broke_but_not_what_it_quoted(store, caplog):
    recorder, job = Recorder(), submit(store, "a")
    recorder.failures = {("answer", "a"): [ValueError("Doe^John")] * 9}
    with caplog.at_level(logging.DEBUG):
        work(store, recorder)
    assert "ValueError" in caplog.text and "Doe" not in caplog.text
    assert "Doe" not in (store.get(job.id).problem or "Doe")


def test_a_deleted_study_is_given_up(store):
    class Deleting(Recorder):
        async def answer(self, request, source, handle) -> Made:
            store.delete(job.id)
            while not handle.cancelled():
                await asyncio.sleep(0.02)
            return Made(iter(self.objects), "{}")

    job, recorder = submit(store, "a"), Deleting()
    work(store, recorder)
    other = submit(store, "b")
    work(store, Recorder())
    assert store.get(other.id).status == "done"
    assert recorder.stored == []


def test_a_stopped_worker_gives_its_study_back(store):
    class Slow(Recorder):
        async def answer(self, request, source, handle) -> Made:
            await asyncio.sleep(60)
            raise AssertionError

    async def run() -> None:
        worker = StudyWorker(store, Slow().steps(), QUICK)
        worker.start()
        while store.get(job.id).stage != "fetched":
            await asyncio.sleep(0.02)
        await worker.stop()

    job = submit(store, "a")
    asyncio.run(run())
    waiting = store.get(job.id)
    assert (waiting.status, waiting.stage, waiting.attempts) == ("queued", "fetched", 0)


def test_the_delay_doubles_is_spread_and_has_an_end():
    patience = Patience(first_s=2, longest_s=60)
    delays = [[patience.delay(attempt) for _ in range(50)] for attempt in range(1, 9)]
    for attempt, drawn in enumerate(delays):
        full = min(60, 2 * 2**attempt)
        assert full / 2 <= min(drawn) < max(drawn) <= full
    assert patience.delay(10_000) <= 60


def test_a_suspect_runs_alone(store):
    class Watching(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.beside: dict[str, int] = {}
            self.running = 0

        async def answer(self, request, source, handle) -> Made:
            self.running += 1
            await asyncio.sleep(0.3)
            self.beside[request.series] = self.running
            await asyncio.sleep(0.3)
            self.running -= 1
            return Made([], "{}")

    for name in ("a", "b"):
        submit(store, name)
    watching = Watching()
    work(store, watching, lanes=2)
    assert watching.beside == {"a": 2, "b": 2}
    for name in ("c", "d", "e"):
        submit(store, name)
    for owner in ("dead", "dead too"):
        store.claims.begin(store.claims.claim(owner).id, owner)
    time.sleep(store.lease + 0.1)
    work(store, watching, lanes=3)
    assert (watching.beside["c"], watching.beside["d"], watching.beside["e"]) == (1, 1, 1)


class Workers:
    """A worker process at a time, forked off one that has its modules: loading them takes longer than a study."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([study_worker.__name__])
        self.process: ForkServerProcess | None = None

    def start(self, *url: str) -> None:
        self.process = self._context.Process(target=study_worker.work, args=(self._root, *url))
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)
        assert self.process.exitcode == -signal.SIGKILL  # it had not ended before

    def close(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.kill()


@pytest.fixture
def workers(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    (tmp_path / "archive").mkdir()
    workers = Workers(tmp_path)
    yield workers
    workers.close()


def wait_until(condition, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_worker_killed_again_and_again_loses_nothing_and_stores_nothing_twice(store, workers, tmp_path):
    chance = random.Random(7)
    names = [f"series{number:02}" for number in range(24)]
    for name in names:
        submit(store, name)
    kills = 0
    while store.counts()["done"] < len(names):
        before = store.counts()["done"]
        workers.start()
        wait_until(lambda before=before: store.counts()["done"] > before)
        time.sleep(chance.uniform(0, 0.6))
        workers.kill()
        kills += 1
    assert kills >= 2  # with two lanes, four studies at least were there when a worker died
    assert store.counts() == {"receiving": 0, "queued": 0, "running": 0, "done": len(names), "dead": 0}
    archive = tmp_path / "archive"
    expected = {f"result of {name}.{number}" for name in names for number in range(3)}
    assert {file.name for file in archive.iterdir()} == expected | {"log"}
    sent = Counter((archive / "log").read_text().splitlines())
    assert set(sent) == expected
    store.sweep()
    assert list(store.folder.iterdir()) == []


@pytest.mark.server
@pytest.mark.skipif(not INSTALLED, reason="Orthanc is not installed")
def test_worker_and_archive_killed_at_random_lose_nothing_and_store_nothing_twice(store, workers, tmp_path):
    chance, count, orthanc = random.Random(11), 15, Orthanc(tmp_path)
    expected: list[str] = []  # SOP Instance UIDs, each once
    orthanc.start()

    def submit_one(number: int) -> None:
        series = sorted(classic_mr(list(pixels), f"series {number}"), key=lambda ds: int(ds.InstanceNumber))
        store_instances(Archive(url=orthanc.web), [saved(ds) for ds in series])
        first = series[0]
        request = StudyRequest("pacs", str(first.StudyInstanceUID), str(first.SeriesInstanceUID), "pacs")
        store.submit(request, key_of(request, KEY))
        expected.extend([*(ds.SOPInstanceUID for ds in series), study_worker.result_uid(first.SOPInstanceUID)])

    try:
        pixels = np.random.default_rng(5).integers(0, 255, (3, 16, 16), np.uint8)
        for first in range(0, count, 3):  # some for each life of the worker, however fast it is
            for number in range(first, first + 3):
                submit_one(number)
            before = store.counts()["done"]
            workers.start(orthanc.web)
            wait_until(lambda before=before: store.counts()["done"] > before)
            time.sleep(chance.uniform(0, 0.1))
            orthanc.kill()
            time.sleep(chance.uniform(0, 1))
            workers.kill()
            orthanc.start()
        workers.start(orthanc.web)
        wait_until(lambda: store.counts()["done"] == count)
        assert store.counts()["dead"] == 0
        stored = [each["MainDicomTags"]["SOPInstanceUID"] for each in orthanc.get("/instances?expand")]
        assert sorted(stored) == sorted(expected)
        assert orthanc.get("/statistics")["CountSeries"] == count * 2
    finally:
        orthanc.close()


def test_a_study_that_kills_its_worker_ends_in_the_dead_letters(store, workers):
    poison, good = submit(store, "poison"), submit(store, "good")

    def settled() -> bool:
        if workers.process is None or not workers.process.is_alive():
            workers.start()
        return store.get(poison.id).status == "dead" and store.get(good.id).status == "done"

    wait_until(settled)
    assert "stopped" in json.loads(store.get(poison.id).problem)["detail"]
    assert store.get(poison.id).crashes == PATIENCE.crashes + 1
    assert store.get(good.id).crashes <= 1  # it is not blamed for what it waited for
