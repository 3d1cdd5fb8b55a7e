from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from orthanc import INSTALLED, Orthanc
from pydicom import dcmread

from service.dicomweb.archives import Archive
from service.dicomweb.client import store_instances
from service.errors import InvalidParameter, RemoteUnavailable
from service.orthanc_feed import FeedSettings, OrthancFeed
from tests.dicom_writers import classic_mr, ophthalmic_tomography, saved

ROOT = Path(__file__).resolve().parents[2]
KEY = b"site key"
pytestmark = [pytest.mark.server, pytest.mark.skipif(not INSTALLED, reason="Orthanc is not installed")]


class Listener:
    """Stands where the service will stand: notes what it is asked, and refuses as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.refused: list[int] = []
        self.refusals: dict[str, list[int]] = {}  # by series: statuses of the next answers, before it is accepted
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refusals = outer.refusals.get(wish["series_uid"], [])
                status = 404 if self.path != "/v1/series" else refusals.pop(0) if refusals else 202
                if status == 202:
                    outer.asked.append((wish["source"], wish["study_uid"], wish["series_uid"]))
                else:
                    outer.refused.append(status)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)
            self._server = None


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Orthanc is asked often whether a series is stable."""
    monkeypatch.setattr("service.orthanc_feed._IDLE_S", 0.1)


@pytest.fixture
def listener():
    listener = Listener()
    listener.start()
    yield listener
    listener.stop()


@pytest.fixture
def orthanc(tmp_path):
    orthanc = Orthanc(tmp_path, StableAge=1)
    orthanc.start()
    yield orthanc
    orthanc.close()


def settings_of(orthanc: Orthanc, listener: Listener, state: Path) -> FeedSettings:
    service = f"http://127.0.0.1:{listener.port}"
    return FeedSettings(orthanc=orthanc.url, service=service, quiet_s=0.5, state=state)


@pytest.fixture
def feed(orthanc, listener, tmp_path):
    return OrthancFeed(settings_of(orthanc, listener, tmp_path / "feed.json"), KEY)


def series_of(count: int, name: str, **elements: object) -> list[bytes]:
    images = list(np.random.default_rng(5).integers(0, 255, (count, 16, 16), np.uint8))
    return [saved(ds) for ds in classic_mr(images, name, **elements)]


def uids(content: bytes) -> tuple[str, str, str]:
    ds = dcmread(BytesIO(content), stop_before_pixels=True)
    return "orthanc", str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)


def store(orthanc: Orthanc, contents: list[bytes]) -> None:
    store_instances(Archive(url=orthanc.web), contents)


def step_until(feed: OrthancFeed, condition, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        if not feed.step():
            time.sleep(0.1)


def settle(feed: OrthancFeed) -> None:
    """Until everything that Orthanc has is dealt with."""
    while feed.step():
        pass
    step_until(feed, lambda: feed.waiting == 0)


def test_a_complete_series_is_asked_about_once(orthanc, listener, feed):
    contents = series_of(3, "a")
    store(orthanc, contents)
    assert feed.step() is False
    assert listener.asked == []  # not quiet yet
    settle(feed)
    assert listener.asked == [uids(contents[0])]
    settle(feed)
    assert len(listener.asked) == 1


def test_a_series_that_grows_is_asked_about_again(orthanc, listener, feed):
    contents = series_of(4, "a")
    store(orthanc, contents[:2])
    settle(feed)
    store(orthanc, contents[2:])
    settle(feed)
    assert listener.asked == [uids(contents[0])] * 2


def test_ours_and_others_are_left_alone(orthanc, listener, feed):
    wanted = series_of(1, "wanted")
    store(orthanc, series_of(1, "ours", Manufacturer="Radiolucent"))
    store(orthanc, series_of(1, "other", Modality="CT"))
    capture = dcmread(BytesIO(series_of(1, "capture")[0]))
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    store(orthanc, [saved(capture), *wanted])
    settle(feed)
    assert listener.asked == [uids(wanted[0])]


def test_a_series_whose_uid_is_none_is_left_out_for_good(orthanc, listener, feed):
    wanted = series_of(1, "wanted")
    store(orthanc, [*series_of(1, "broken", SeriesInstanceUID="1..2"), *wanted])
    settle(feed)
    assert listener.asked == [uids(wanted[0])]


def test_tomography_of_the_eye_is_no_capture_although_its_class_begins_alike(orthanc, listener, feed):
    scan = saved(ophthalmic_tomography([np.full((16, 16), 90, np.uint8)], "eye"))
    store(orthanc, [scan])
    settle(feed)
    assert listener.asked == [uids(scan)]


def test_more_changes_than_one_answer_holds(orthanc, listener, feed):
    contents = series_of(70, "long")
    store(orthanc, contents)
    store(orthanc, series_of(60, "second"))
    settle(feed)
    assert Counter(listener.asked) == Counter([uids(contents[0]), uids(series_of(1, "second")[0])])


def test_a_service_that_refuses_is_asked_again(orthanc, listener, feed):
    expected: set[tuple[str, str, str]] = set()
    for statuses in ([400], [422], [500], [503, 503]):
        contents = series_of(1, f"refused with {statuses}")
        expected.add(uids(contents[0]))
        listener.refusals[uids(contents[0])[2]] = statuses
        store(orthanc, contents)
    step_until(feed, lambda: len(listener.refused) >= 4)
    assert feed.waiting == 4 - len(listener.asked)
    settle(feed)
    assert sorted(listener.refused) == [400, 422, 500, 503, 503]
    assert len(listener.asked) == 4
    assert set(listener.asked) == expected


def test_a_service_that_is_away_is_waited_for_over_a_restart(orthanc, listener, feed, tmp_path):
    listener.stop()
    contents = series_of(1, "a")
    store(orthanc, contents)
    step_until(feed, lambda: feed.waiting == 1)
    feed.step()
    again = OrthancFeed(settings_of(orthanc, listener, tmp_path / "feed.json"), KEY)
    assert again.waiting == 1
    listener.start()
    step_until(again, lambda: again.waiting == 0)
    assert listener.asked == [uids(contents[0])]


def test_a_series_that_is_deleted_is_forgotten(orthanc, listener, feed):
    contents = series_of(1, "a")
    store(orthanc, contents)
    feed.step()
    assert feed.waiting == 1
    (series,) = orthanc.get("/series")
    httpx.delete(f"{orthanc.url}/series/{series}", trust_env=False).raise_for_status()
    settle(feed)
    assert listener.asked == []


def test_orthanc_killed_before_a_series_was_stable_loses_nothing(orthanc, listener, feed):
    contents = series_of(2, "a")
    store(orthanc, contents)
    orthanc.kill()
    with pytest.raises(RemoteUnavailable):
        feed.step()
    orthanc.start()
    settle(feed)
    assert listener.asked == [uids(contents[0])]


def test_another_orthanc_is_read_from_its_start(orthanc, listener, feed, tmp_path):
    store(orthanc, series_of(3, "a"))
    settle(feed)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Orthanc(other_folder, StableAge=1)
    other.start()
    try:
        contents = series_of(1, "b")
        store(other, contents)
        moved = OrthancFeed(settings_of(other, listener, tmp_path / "feed.json"), KEY)
        step_until(moved, lambda: uids(contents[0]) in listener.asked)
    finally:
        other.close()


def test_a_damaged_memory_is_an_error_and_not_a_new_start(orthanc, listener, tmp_path):
    state = tmp_path / "feed.json"
    state.write_text('{"last": 3')
    with pytest.raises(InvalidParameter, match=r"feed\.json is damaged"):
        OrthancFeed(settings_of(orthanc, listener, state), KEY)


def test_killed_again_and_again_it_asks_about_every_series(orthanc, listener, tmp_path):
    """Feed, Orthanc and the service are killed or stopped at random moments."""
    chance = random.Random(3)
    environment = os.environ | {
        "RADIOLUCENT_FEED_ORTHANC": orthanc.url,
        "RADIOLUCENT_FEED_SERVICE": f"http://127.0.0.1:{listener.port}",
        "RADIOLUCENT_FEED_QUIET_S": "0.3",
        "RADIOLUCENT_FEED_STATE": str(tmp_path / "feed.json"),
        "XDG_STATE_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "service.orthanc_feed"]
    log = (tmp_path / "feed.txt").open("ab")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)

    feed, expected = start(), set()
    try:
        for number in range(12):
            contents = series_of(2, f"series {number}")
            store(orthanc, contents)
            expected.add(uids(contents[0]))
            time.sleep(chance.uniform(0, 1.5))
            if number % 3 == 0:
                feed.send_signal(signal.SIGKILL)
                feed.wait(10)
                feed = start()
            elif number % 3 == 1:
                orthanc.kill()
                orthanc.start()
            else:
                listener.stop()
                time.sleep(0.3)
                listener.start()
        until = time.monotonic() + 120
        while set(listener.asked) != expected:
            assert time.monotonic() < until, len(listener.asked)
            time.sleep(0.2)
    finally:
        feed.kill()
        feed.wait(10)
        log.close()
    text = (tmp_path / "feed.txt").read_text()
    assert "Traceback" not in text
    for _, study, series in expected:
        assert study not in text and series not in text
