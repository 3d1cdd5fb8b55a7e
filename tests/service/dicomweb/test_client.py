from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
from orthanc import INSTALLED, Orthanc
from pydicom import dcmread

from service.dicomweb.archives import Archive, find_archive
from service.dicomweb.client import dicom_json, fetch_series, store_instances
from service.dicomweb.multipart import Limits, MultipartReader, write_multipart
from service.dicomweb.query import FoundSeries, find_series
from service.errors import (
    InvalidParameter,
    RemoteMissing,
    RemoteRefused,
    RemoteUnavailable,
    TooLarge,
    TooManyImages,
    UnknownSource,
)
from tests.dicom_writers import classic_mr, saved

SECRET = "secret"  # noqa: S105 - of nobody
Answer = Callable[[BaseHTTPRequestHandler], None]


def series_of(count: int, name: str = "classic", side: int = 16) -> list[bytes]:
    chance = np.random.default_rng(5)
    return [saved(ds) for ds in classic_mr(list(chance.integers(0, 255, (count, side, side), np.uint8)), name)]


def uids(content: bytes) -> tuple[str, str, str]:
    ds = dcmread(BytesIO(content), stop_before_pixels=True)
    return str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)


class Scripted:
    """A server that gives the next answer of a list to every request, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers, body))
                outer.answers[0](self)
                if len(outer.answers) > 1:
                    outer.answers.pop(0)

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/web"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


def archive_of(server: Scripted, **changed: object) -> Archive:
    return Archive(url=server.url, first_delay_s=0.01, **changed)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def giving(contents: list[bytes], *, cut: int | None = None, honest: bool = True) -> Answer:
    """A multipart answer; with `cut` the connection closes after so many bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        kind, pieces = write_multipart(contents)
        body = b"".join(pieces)
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        if honest:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:cut])

    return answer


def fetch(archive: Archive, limits: Limits | None = None) -> list[bytes]:
    return list(fetch_series(archive, "1.2.3", "1.2.3.4", limits or Limits()))


def test_a_series_is_fetched_as_it_is_stored(server):
    contents = series_of(3)
    server.answers = [giving(contents)]
    assert fetch(archive_of(server, user="me", password=SECRET)) == contents
    method, path, headers, _ = server.requests[0]
    assert (method, path) == ("GET", "/web/studies/1.2.3/series/1.2.3.4")
    assert headers["accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert headers["authorization"] == "Basic bWU6c2VjcmV0"


def test_instances_come_while_others_are_still_on_their_way(server):
    contents = [bytes([number]) * 2**18 for number in range(3)]
    go_on = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        kind, pieces = write_multipart(contents)
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        for number, piece in enumerate(pieces):
            if number == 5:
                go_on.wait(30)
            handler.wfile.write(piece)

    server.answers = [answer]
    arriving = fetch_series(archive_of(server), "1.2", "1.3", Limits())
    assert next(arriving) == contents[0]
    go_on.set()
    assert list(arriving) == contents[1:]


@pytest.mark.parametrize("honest", [True, False])
def test_a_connection_that_breaks_is_made_anew_and_nothing_is_given_twice(server, honest):
    contents = series_of(4)
    half = sum(map(len, contents)) // 2
    server.answers = [status(503), giving(contents, cut=half, honest=honest), giving(contents)]
    assert fetch(archive_of(server)) == contents
    assert len(server.requests) == 3


def test_a_series_that_is_always_cut_off_is_an_error_and_never_a_short_series(server):
    server.answers = [giving(series_of(4), cut=5000, honest=False)]
    with pytest.raises(RemoteUnavailable):
        fetch(archive_of(server))
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [401, 403, 408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server, code):
    server.answers = [status(code), giving([b"one"])]
    assert fetch(archive_of(server)) == [b"one"]


def test_what_the_archive_does_not_have_is_not_asked_for_again_at_once(server):
    server.answers = [status(404), giving([b"one"])]
    with pytest.raises(RemoteMissing):
        fetch(archive_of(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(("code", "headers"), [(400, {}), (406, {}), (410, {}), (302, {"Location": "http://x/"})])
def test_what_will_not_pass_is_not_and_redirects_are_not_followed(server, code, headers):
    server.answers = [status(code, **headers)]
    with pytest.raises(RemoteRefused):
        fetch(archive_of(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        status(200, b"{}", Content_Type="application/json"),
        status(200, b"", Content_Type="multipart/related; boundary=x"),
        status(200, b"x"),
        giving([]),
        status(204),
    ],
)
def test_an_answer_without_instances_is_an_error(server, answer):
    server.answers = [answer]
    with pytest.raises((RemoteMissing, RemoteUnavailable, RemoteRefused)):
        fetch(archive_of(server, attempts=1))


def test_one_instance_without_an_envelope_is_taken(server):
    server.answers = [status(200, b"one", Content_Type="application/dicom")]
    assert fetch(archive_of(server)) == [b"one"]
    with pytest.raises(TooLarge):
        fetch(archive_of(server), Limits(file_bytes=2))


def test_a_series_has_limits(server):
    server.answers = [giving([b"one", b"two"])]
    with pytest.raises(TooManyImages):
        fetch(archive_of(server), Limits(files=1))
    assert len(server.requests) == 1


def test_an_archive_that_is_down_silent_or_slow_is_unavailable(server):
    def silent(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/dicom")
        handler.end_headers()
        for _ in range(8):
            handler.wfile.write(bytes(2**18))
            handler.wfile.flush()
            time.sleep(0.1)

    server.answers = [silent]
    with pytest.raises(RemoteUnavailable):
        fetch(archive_of(server, read_s=0.2, attempts=1))
    server.answers = [slow]
    with pytest.raises(RemoteUnavailable, match="too long"):
        fetch(archive_of(server, total_s=0.3, attempts=1))
    with pytest.raises(RemoteUnavailable):
        fetch(Archive(url="http://127.0.0.1:9", attempts=2, first_delay_s=0.01))


@pytest.mark.parametrize("uid", ["", "..", ".", "1..2", "1.2.", "../..", "1.2/../3", "1.2?x", "1" * 65, "a"])
def test_only_uids_become_parts_of_addresses(uid):
    with pytest.raises(InvalidParameter):
        list(fetch_series(Archive(url="http://127.0.0.1:9"), uid, "1.2", Limits()))


def test_only_configured_archives_are_called():
    archives = {"a": Archive(url="http://one/web/"), "b": Archive(url="https://two")}
    assert find_archive(archives, "b") == "b"
    assert find_archive(archives, wado_url="http://one/web") == "a"
    for source, url in (("c", ""), ("", "http://one"), ("", "http://evil/"), ("", ""), ("", "http://one/web/../x")):
        with pytest.raises(UnknownSource):
            find_archive(archives, source, url)


def test_passwords_are_not_shown():
    shown = repr(Archive(url="http://one", user="me", password=SECRET, token=SECRET))
    assert SECRET not in shown


def said(stored: list[str] = (), failed: dict[str, int] | None = None) -> bytes:
    def item(uid: str, reason: int | None = None) -> dict[str, object]:
        why = {} if reason is None else {"00081197": {"vr": "US", "Value": [reason]}}
        return {"00081155": {"vr": "UI", "Value": [uid]}, **why}

    answer = {"00081199": {"vr": "SQ", "Value": [item(uid) for uid in stored]}}
    answer["00081198"] = {"vr": "SQ", "Value": [item(uid, why) for uid, why in (failed or {}).items()]}
    return json.dumps(answer).encode()


@pytest.fixture(scope="module")
def two() -> list[bytes]:
    return series_of(2)


def test_instances_are_stored(server, two):
    server.answers = [status(200, said([uids(content)[2] for content in two]))]
    assert store_instances(archive_of(server), iter(two)) == 2
    method, path, headers, body = server.requests[0]
    assert (method, path) == ("POST", "/web/studies")
    reader = MultipartReader(headers["content-type"], Limits())
    assert list(reader.feed(body)) == two


def test_a_status_200_needs_no_list(server, two):
    server.answers = [status(200)]
    assert store_instances(archive_of(server), two) == 2


def test_nothing_to_store_asks_nothing(server):
    assert store_instances(archive_of(server), []) == 0
    assert server.requests == []


def test_what_is_there_already_is_stored(server, two):
    first, second = (uids(content)[2] for content in two)
    server.answers = [status(409, said([first], {second: 0x0111}))]
    assert store_instances(archive_of(server), two) == 2


@pytest.mark.parametrize("code", [200, 202])
def test_an_instance_that_is_not_on_the_list_is_not_stored(server, two, code):
    server.answers = [status(code, said([uids(two[0])[2]]))]
    with pytest.raises(RemoteUnavailable, match="1 instances"):
        store_instances(archive_of(server), two)
    assert len(server.requests) == 3


def test_a_full_archive_is_asked_again(server, two):
    both = [uids(content)[2] for content in two]
    server.answers = [status(202, said(both[:1], {both[1]: 0xA700})), status(503), status(200, said(both))]
    assert store_instances(archive_of(server), two) == 2
    assert len(server.requests) == 3


def test_a_refused_instance_is_final_and_its_uid_is_not_told(server, two):
    both = [uids(content)[2] for content in two]
    server.answers = [status(202, said(both[:1], {both[1]: 0xA900}))]
    with pytest.raises(RemoteRefused, match="A900H") as caught:
        store_instances(archive_of(server), two)
    assert both[1] not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<xml/>", b"[]", b"[1]", b'{"00081199": 1}', b'{"00081199": {"Value": [1]}}'])
def test_an_unclear_answer_is_not_a_yes(server, two, body):
    server.answers = [status(202, body)]
    with pytest.raises(RemoteUnavailable):
        store_instances(archive_of(server, attempts=1), two)


def test_many_instances_go_in_several_requests(server):
    many = series_of(70)
    server.answers = [status(200)]
    assert store_instances(archive_of(server), many) == 70
    assert len(server.requests) == 2


def test_the_log_holds_no_uids_and_no_addresses(server, two, caplog):
    server.answers = [giving(two, cut=300), status(500), status(400)]
    with caplog.at_level(logging.DEBUG), pytest.raises((RemoteRefused, RemoteUnavailable)):
        fetch(archive_of(server))
    assert "1.2.3" not in caplog.text and "/web" not in caplog.text


def test_the_json_model_can_be_read_back(two):
    from pydicom import Dataset

    for content, model in zip(two, dicom_json(two), strict=True):
        assert Dataset.from_json(json.dumps(model)) == _without_meta(content)


def _without_meta(content: bytes):
    from pydicom import Dataset

    return Dataset(dcmread(BytesIO(content)))


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"))
    orthanc.start()
    yield orthanc
    orthanc.close()


@pytest.mark.server
@pytest.mark.skipif(not INSTALLED, reason="Orthanc is not installed")
class TestOrthanc:
    def test_what_is_stored_is_fetched_again_and_storing_twice_stores_once(self, orthanc):
        contents = series_of(5, "roundtrip", side=64)
        archive = Archive(url=orthanc.web)
        for _ in range(2):
            assert store_instances(archive, contents) == 5
        study, series, _ = uids(contents[0])
        fetched = list(fetch_series(archive, study, series, Limits()))
        assert sorted(uids(content)[2] for content in fetched) == sorted(uids(content)[2] for content in contents)
        pixels = {uids(content)[2]: dcmread(BytesIO(content)).pixel_array for content in contents}
        for content in fetched:
            assert np.array_equal(dcmread(BytesIO(content)).pixel_array, pixels[uids(content)[2]])
        assert orthanc.get("/statistics")["CountInstances"] == 5

    def test_another_client_reads_what_was_stored(self, orthanc):
        from dicomweb_client import DICOMwebClient

        contents = series_of(2, "other client")
        store_instances(Archive(url=orthanc.web), contents)
        study, series, instance = uids(contents[0])
        found = DICOMwebClient(orthanc.web).retrieve_instance(study, series, instance)
        assert str(found.SOPInstanceUID) == instance

    def test_a_series_that_is_not_there_is_said_to_be_missing(self, orthanc):
        archive = Archive(url=orthanc.web, attempts=2, first_delay_s=0.01)
        with pytest.raises(RemoteMissing):
            list(fetch_series(archive, "1.2.3", "1.2.3.4", Limits()))

    def test_what_is_no_dicom_is_refused(self, orthanc):
        with pytest.raises((RemoteRefused, RemoteUnavailable)):
            store_instances(Archive(url=orthanc.web, attempts=1), [series_of(1)[0][:400]])

    def test_a_killed_archive_is_unavailable_and_loses_nothing(self, tmp_path):
        orthanc = Orthanc(tmp_path)
        contents = series_of(3, "killed")
        study, series, _ = uids(contents[0])
        archive = Archive(url=orthanc.web, attempts=2, first_delay_s=0.01)
        try:
            orthanc.start()
            store_instances(archive, contents)
            orthanc.kill()
            with pytest.raises(RemoteUnavailable):
                list(fetch_series(archive, study, series, Limits()))
            orthanc.start()
            assert len(list(fetch_series(archive, study, series, Limits()))) == 3
        finally:
            orthanc.close()


def test_tls_is_checked(tmp_path, two):
    import ssl

    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    server = Scripted()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    url = server.url.replace("http://127.0.0.1", "https://localhost")
    try:
        server.answers = [giving(two)]
        assert fetch(Archive(url=url, ca=certificate)) == two
        with pytest.raises(RemoteUnavailable):
            fetch(Archive(url=url, attempts=1))
    finally:
        server.close()


def found_series(*numbers: int) -> Answer:
    tags = [{"0020000D": {"Value": ["1.2"]}, "0020000E": {"Value": [f"1.3.{number}"]}} for number in numbers]
    return body("application/dicom+json", json.dumps(tags).encode())


def body(kind: str, content: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_a_query_goes_on_until_an_empty_page(server):
    server.answers = [found_series(1, 2), found_series(3), found_series()]
    found = list(find_series(Archive(url=server.url), {"PatientName": "A&B"}))
    assert found == [FoundSeries("1.2", f"1.3.{number}", 1) for number in (1, 2, 3)]
    assert ["offset=0" in path or path.split("offset=")[1] for _, path, _, _ in server.requests] == [True, "2", "3"]
    assert all("PatientName=A%26B" in path for _, path, _, _ in server.requests)


def test_a_query_ends_where_the_archive_knows_no_offset(server):
    server.answers = [found_series(1, 2)]
    assert len(list(find_series(Archive(url=server.url), {}))) == 2


@pytest.mark.parametrize("content", [b"{", b"[1]", b'[{"0020000D": {"Value": ["../.."]}}]', b'{"a": 1}', b"[{}]"])
def test_an_answer_to_a_query_that_is_none_is_refused(server, content):
    server.answers = [body("application/dicom+json", content)]
    with pytest.raises(RemoteRefused):
        list(find_series(Archive(url=server.url), {}))
