from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from socketserver import BaseServer

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.uid import MRImageStorage
from pynetdicom import AE

from service.errors import TooManyRequests
from service.observability import hashed_uid
from service.settings import ScpSettings, Settings
from service.studies.rows import StudyRequest
from service.studies.scp import Scp
from service.studies.store import StudyStore
from tests.certificates import client_context, make_certificates
from tests.dicom_writers import classic_mr, saved

KEY = b"site key"
CALLER = "MODALITY"
_STORAGE = "1.2.840.10008.5.1.4.1.1"
RESULTS = tuple(f"{_STORAGE}.{rest}" for rest in ("88.33", "88.34", "7", "7.4", "30", "66.4", "11.1", "11.8"))


def open_store(path: Path, **changed: float) -> StudyStore:
    limits = {"lease": 5.0, "ttl": 60.0, "limit": 10} | changed
    return StudyStore(f"sqlite:///{path / 'studies.sqlite'}", path / "studies", **limits)


def series_of(count: int, name: str = "classic", side: int = 16) -> list[bytes]:
    chance = np.random.default_rng(5)
    return [saved(ds) for ds in classic_mr(list(chance.integers(0, 255, (count, side, side), np.uint8)), name)]


class Door:
    """An SCP on a free port, and its queue."""

    def __init__(self, path: Path, store: StudyStore | None = None, **changed: object) -> None:
        self.store = store or open_store(path)
        defaults = {"enabled": True, "port": 0, "callers": (CALLER,), "quiet_s": 30, "settle_s": 0, "target": "pacs"}
        self.scp = Scp(ScpSettings(**defaults | {"min_free_mib": 0} | changed), self.store, KEY)
        self.scp.start()

    def claim(self, seconds: float = 10):
        """The next job that is due, and its instances."""
        until = time.monotonic() + seconds
        while (job := self.store.claims.claim("me")) is None:
            assert time.monotonic() < until, self.store.counts()
            time.sleep(0.05)
        return job, list(self.store.claims.file(job.id, "source"))

    def close(self) -> None:
        self.scp.stop()
        self.store.close()


@pytest.fixture(autouse=True)
def prompt(monkeypatch):
    """pynetdicom's server looks every half second whether it is to stop; here more often."""
    monkeypatch.setattr(BaseServer.serve_forever, "__defaults__", (0.01,))


@pytest.fixture
def door(tmp_path):
    door = Door(tmp_path)
    yield door
    door.close()


def call(door: Door, caller: str = CALLER, called: str = "RADIOLUCENT", **options):
    entity = AE(ae_title=caller)
    for abstract in ("1.2.840.10008.1.1", MRImageStorage, *RESULTS):
        entity.add_requested_context(abstract)
    return entity.associate("127.0.0.1", door.scp.port, ae_title=called, **options)


def send(association, contents: list[bytes]) -> list[int]:
    return [association.send_c_store(dcmread(BytesIO(content))).Status for content in contents]


def instances(contents: list[bytes]) -> list[str]:
    return sorted(str(dcmread(BytesIO(content)).SOPInstanceUID) for content in contents)


def test_echo(door):
    association = call(door)
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_series_becomes_one_job_when_the_association_ends(door):
    contents = series_of(4)
    association = call(door)
    assert send(association, contents) == [0] * 4
    assert door.store.claims.claim("me") is None
    association.release()
    job, received = door.claim()
    assert instances(received) == instances(contents)
    assert np.array_equal(dcmread(BytesIO(received[0])).pixel_array, dcmread(BytesIO(contents[0])).pixel_array)
    assert (job.stage, job.asked().target, job.asked().source) == ("fetched", "pacs", "")
    assert job.label == hashed_uid(str(dcmread(BytesIO(contents[0])).SeriesInstanceUID), KEY)
    assert door.store.claims.claim("me") is None


def test_two_series_of_an_association_are_two_jobs(door):
    first, second = series_of(2, "first"), series_of(3, "second")
    association = call(door)
    send(association, [first[0], second[0], first[1], *second[1:]])
    association.release()
    assert sorted(len(door.claim()[1]) for _ in range(2)) == [2, 3]


def test_a_series_that_two_associations_bring_is_one_job(door):
    contents = series_of(4)
    one, two = call(door), call(door)
    send(one, contents[:2])
    send(two, contents[2:3])
    one.release()
    time.sleep(0.3)
    assert door.store.claims.claim("me") is None  # the other one still brings it
    send(two, contents[3:])
    two.release()
    assert instances(door.claim()[1]) == instances(contents)


def test_an_aborted_association_loses_nothing_that_was_confirmed(door):
    contents = series_of(3)
    association = call(door)
    send(association, contents[:2])
    association.abort()
    assert instances(door.claim()[1]) == instances(contents[:2])


def test_a_quiet_association_ends_the_series_and_what_comes_later_is_another_job(tmp_path):
    door = Door(tmp_path, quiet_s=0.4)
    contents = series_of(3)
    association = call(door)
    send(association, contents[:2])
    assert instances(door.claim()[1]) == instances(contents[:2])
    assert send(association, contents[2:]) == [0]
    association.release()
    assert instances(door.claim()[1]) == instances(contents[2:])
    door.close()


def test_what_was_confirmed_outlives_a_receiver_that_is_not_stopped_properly(tmp_path):
    door = Door(tmp_path, quiet_s=1)
    contents = series_of(2)
    association = call(door)
    send(association, contents)
    other = open_store(tmp_path)  # all that is left when the first process is killed: the folder
    until = time.monotonic() + 60
    while (job := other.claims.claim("other")) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert instances(list(other.claims.file(job.id, "source"))) == instances(contents)
    other.close()
    association.release()
    door.close()


@pytest.mark.parametrize(("caller", "called"), [("STRANGER", "RADIOLUCENT"), (CALLER, "OTHER")])
def test_other_ae_titles_are_turned_away(door, caller, called):
    association = call(door, caller, called)
    assert not association.is_established
    assert door.store.listing() == []


def test_there_is_a_limit_of_associations(tmp_path):
    door = Door(tmp_path, associations=1)
    first, second = call(door), call(door)
    assert (first.is_established, second.is_established) == (True, False)
    first.release()
    door.close()


def call_from(host: str, door: Door):
    return call(door, bind_address=(host, 0))


def test_a_host_has_half_of_the_associations_that_the_others_leave(tmp_path):
    door = Door(tmp_path, associations=4)
    made = [call_from(host, door) for host in ["127.0.0.1"] * 3 + ["127.0.0.2"] * 2 + ["127.0.0.3"]]
    assert [each.is_established for each in made] == [True, True, False, True, False, True]
    assert made[2].is_rejected
    for each in (made[0], made[3]):
        each.release()
    made.append(call_from("127.0.0.1", door))
    assert made[-1].is_established
    for each in made:
        each.abort()
    door.close()


def test_a_host_that_connects_as_often_as_it_can_keeps_no_other_out(tmp_path):
    door = Door(tmp_path, associations=2)
    threads = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", door.scp.port), timeout=60) for _ in range(40)]
    other = call_from("127.0.0.2", door)
    assert other.is_established
    other.release()
    for connection in silent:
        connection.close()
    wait_for_end(threads)
    door.close()


def test_a_silent_connection_ends_with_the_door(tmp_path):  # what a thread of pynetdicom raises fails it
    door = Door(tmp_path)
    threads = threading.active_count()
    with socket.create_connection(("127.0.0.1", door.scp.port), timeout=60) as connection:
        while threading.active_count() == threads:
            time.sleep(0.01)
        door.close()
        assert ended(connection)


def test_a_request_that_comes_byte_by_byte_has_no_longer_than_one_that_does_not_come(tmp_path):
    door = Door(tmp_path, network_s=1)
    with socket.create_connection(("127.0.0.1", door.scp.port), timeout=60) as connection:
        connection.sendall(b"\x01\x00\x00\x00\x04\x00")
        with pytest.raises(ConnectionError):
            for _ in range(150):  # 15 s
                connection.sendall(b"\x00")
                time.sleep(0.1)
    door.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_sender_comes_in_where_more_than_a_thousand_files_are_open(door):
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (before, most))
        for _ in range(1024):
            opened.enter_context(open(os.devnull))
        arguments = ("127.0.0.1", str(door.scp.port), "-aet", CALLER, "-aec", "RADIOLUCENT")
        echo = subprocess.run([sys.executable, "-m", "pynetdicom", "echoscu", *arguments], timeout=60, check=False)
    assert echo.returncode == 0


def test_an_association_may_bring_more_series_than_a_process_may_open_files(tmp_path):
    door = Door(tmp_path, open_store(tmp_path, limit=100))
    association = call(door)
    send(association, series_of(2, "series"))
    before = open_files()
    series = [series_of(2, f"series {number}") for number in range(20)]
    assert send(association, [content for each in zip(*series, strict=True) for content in each]) == [0] * 40
    assert open_files() < before + 10
    association.release()
    assert sorted(len(door.claim()[1]) for _ in range(21)) == [2] * 21
    door.close()


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x00"])  # nothing, or half of a PDU's head
def test_connections_that_say_nothing_are_few_and_are_closed(tmp_path, sent):
    door = Door(tmp_path, associations=2, network_s=1)
    threads = threading.active_count()
    silent, most = list[socket.socket](), 0
    for _ in range(40):
        silent.append(socket.create_connection(("127.0.0.1", door.scp.port), timeout=60))
        with contextlib.suppress(OSError):
            silent[-1].sendall(sent)
        time.sleep(0.01)
        most = max(most, threading.active_count() - threads)
    assert most <= 2 * 5  # two threads for each of half of so many connections as there may be
    assert all(ended(connection) for connection in silent)
    wait_for_end(threads)
    association = call(door)
    assert association.is_established
    association.release()
    for connection in silent:
        connection.close()
    door.close()


def test_a_pdu_that_announces_gigabytes_is_not_kept(door):
    address = ("127.0.0.1", door.scp.port)
    with socket.create_connection(address, timeout=60) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"\x01\x00\xff\xff\xff\xff")
        for _ in range(64):
            connection.sendall(bytes(2**20))


def wait_for_end(threads: int) -> None:
    """Until no more than so many threads are there."""
    until = time.monotonic() + 60
    while threading.active_count() > threads:
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes it, be it with the news of an abort."""
    try:
        while connection.recv(100):
            pass
    except ConnectionError:
        pass
    return True


def test_a_full_queue_is_out_of_resources(tmp_path):
    door = Door(tmp_path, open_store(tmp_path, limit=1))
    first, second = series_of(2, "first"), series_of(1, "second")
    association = call(door)
    assert send(association, [first[0], second[0], first[1]]) == [0, 0xA700, 0]
    association.release()
    assert instances(door.claim()[1]) == instances(first)
    door.close()


def test_callers_over_http_leave_each_sender_a_share_of_the_queue(tmp_path):
    door = Door(tmp_path, open_store(tmp_path, limit=6))
    for number in range(3):
        door.store.insert(StudyRequest("pacs", "1.2", f"1.{number}"), status="queued", hold=60)
    with pytest.raises(TooManyRequests):
        door.store.insert(StudyRequest("pacs", "1.2", "1.3"), status="queued")
    series = [series_of(1, f"series {number}")[0] for number in range(5)]
    for host, answers in (("127.0.0.1", [0, 0, 0xA700]), ("127.0.0.2", [0, 0xA700])):
        association = call_from(host, door)
        assert send(association, [series.pop() for _ in answers]) == answers
        association.release()
    door.close()


def test_a_full_disk_is_out_of_resources(tmp_path):
    door = Door(tmp_path, min_free_mib=2**40)
    association = call(door)
    assert send(association, series_of(1)) == [0xA700]
    association.release()
    assert door.store.listing() == []
    door.close()


def test_a_broken_database_is_out_of_resources_and_not_the_end(tmp_path):
    door = Door(tmp_path)
    shutil.move(tmp_path / "studies", tmp_path / "away")
    association = call(door)
    assert send(association, series_of(1)) == [0xA700]
    assert door.store.listing() == []
    shutil.move(tmp_path / "away", tmp_path / "studies")
    assert send(association, series_of(1)) == [0]
    association.release()
    door.close()


def test_a_series_that_is_too_large_is_refused(tmp_path):
    door = Door(tmp_path, max_series_mib=1)
    contents = series_of(3, side=512)  # 512 KiB each
    association = call(door)
    assert send(association, contents) == [0, 0xA700, 0xA700]
    association.release()
    door.close()


def test_an_instance_without_end_is_cut_off(tmp_path):
    door = Door(tmp_path, max_instance_mib=1)
    association = call(door)
    send(association, series_of(1))
    ds = dcmread(BytesIO(series_of(2, side=1024)[1]))
    assert association.send_c_store(ds).get("Status") != 0
    until = time.monotonic() + 60
    while association.is_established:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(door.claim()[1]) == 1
    door.close()


def test_an_instance_without_uids_cannot_be_understood(door):
    ds = dcmread(BytesIO(series_of(1)[0]))
    del ds.SeriesInstanceUID
    association = call(door)
    assert association.send_c_store(ds).Status == 0xC000
    association.release()
    assert door.store.listing() == []


def test_results_ours_among_them_are_not_taken(door):
    association = call(door)
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    association.release()
    assert MRImageStorage in accepted
    assert not accepted & set(RESULTS)


def test_the_log_holds_no_names_no_titles_and_no_uids(tmp_path, caplog):
    door = Door(tmp_path, open_store(tmp_path, limit=1))
    contents = [*series_of(1, "first"), *series_of(1, "second")]
    with caplog.at_level(logging.DEBUG):
        for logged in ("radiolucent", "root"):
            logging.getLogger(logged).setLevel(logging.DEBUG)
        association = call(door)
        send(association, contents)
        association.release()
    ds = dcmread(BytesIO(contents[1]))
    assert hashed_uid(str(ds.SeriesInstanceUID), KEY) in caplog.text
    for secret in (CALLER, str(ds.PatientName), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)):
        assert secret not in caplog.text
    door.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"enabled": True, "target": "pacs"},
        {"enabled": True, "callers": (CALLER,)},
        {"options": {"results": ["report"]}},
        {"options": {"kinds": ["pdf"]}},
        {"certificate": "x"},
        {"client_certificates": True},
        {"ae_title": "seventeen letters"},
        {"ae_title": "back\\slash"},
        {"ae_title": ""},
    ],
)
def test_settings_that_would_open_the_door_too_far_or_lose_its_answers_are_refused(settings):
    with pytest.raises(ValidationError):
        ScpSettings(**settings)


def test_the_settings_of_the_document_open_the_door(monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    for name in ("ARCHIVES", "SCP"):
        (example,) = set(re.findall(rf"`RADIOLUCENT_{name}`, [^`]*such as\s`(.+?)`", text))
        monkeypatch.setenv(f"RADIOLUCENT_{name}", example)
    settings = Settings()
    assert settings.scp.enabled
    assert settings.scp.target in settings.archives


def test_it_is_off_by_default():
    assert not ScpSettings().enabled


@pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
def test_dcmtk_sends_to_it(door, tmp_path):
    contents = series_of(3)
    folder = tmp_path / "files"
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number}.dcm").write_bytes(content)
    command = ["storescu", "-aet", CALLER, "-aec", "RADIOLUCENT", "+sd", "127.0.0.1", str(door.scp.port), str(folder)]
    subprocess.run(command, check=True, timeout=60)
    assert instances(door.claim()[1]) == instances(contents)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, "server", "client")
    return folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of pynetdicom's client, turned away
def test_tls_with_client_certificates(tmp_path, certificates):
    tls = {"certificate": certificates / "server.pem", "key": certificates / "server.key"}
    door = Door(tmp_path, ca=certificates / "client.pem", client_certificates=True, network_s=5, **tls)
    threads = threading.active_count()
    silent = socket.create_connection(("127.0.0.1", door.scp.port))  # never shakes hands
    contents = series_of(2)
    known = call(door, tls_args=(client_context(certificates, "client"), None))
    assert send(known, contents) == [0, 0]
    known.release()
    assert instances(door.claim()[1]) == instances(contents)
    unknown = call(door, tls_args=(client_context(certificates), None))
    assert not unknown.is_established
    plain = call(door)
    assert not plain.is_established
    silent.close()
    wait_for_end(threads)
    door.close()
    del unknown, plain
    gc.collect()
