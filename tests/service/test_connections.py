"""Clients that stand still, against a real uvicorn and through the guard's channels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvicorn
from bright import write_bundle_into
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from service.api import make_api
from service.connections import Connection, use_connections
from service.database import is_storage_full
from service.pipeline import Pipeline
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STALL_S = 0.4
LARGE = 8 * 2**20
LONGEST_HEAD = 2**16


async def _large(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


async def _small(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"here"})


@contextlib.asynccontextmanager
async def _served(monkeypatch, app=_large):
    monkeypatch.setattr(Connection, "stall_s", STALL_S)
    use_connections()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listening.getsockname(), server.server_state.connections
    server.should_exit = True
    await task


async def _connected(place, buffer: int = 4096) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, place)
    return client


async def _ended(connections) -> None:
    """Once none is left, or after so long that it never would be."""
    until = time.monotonic() + 20
    while connections and time.monotonic() < until:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "half a head", "a request whose answer is not read"],
)
def test_a_connection_that_stands_still_is_ended(monkeypatch, sent):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            with await _connected(place) as client:
                await asyncio.get_running_loop().sock_sendall(client, sent)
                await asyncio.sleep(STALL_S / 2)
                held = len(connections)
                await _ended(connections)
                return held, len(connections)

    assert asyncio.run(scenario()) == (1, 0)


def test_a_second_head_on_a_connection_is_waited_for_no_longer_than_the_first(monkeypatch):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                heard = 0
                while heard < LARGE:
                    heard += len(await loop.sock_recv(client, 2**20))
                await asyncio.sleep(2 * STALL_S)
                idle = len(connections)  # kept alive, as uvicorn was told
                await loop.sock_sendall(client, b"GET /")
                await _ended(connections)
                return idle, len(connections)

    assert asyncio.run(scenario()) == (1, 0)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["nothing", "a request"])
def test_a_request_that_was_on_its_way_when_the_server_ended_is_answered_as_the_last(monkeypatch, sent):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            with await _connected(place) as client:
                while not connections:
                    await asyncio.sleep(0.01)
                for connection in list(connections):
                    connection.shutdown()  # as uvicorn does
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, sent)
                heard = b""
                while more := await loop.sock_recv(client, 2**20):
                    heard += more
                return heard

    heard = asyncio.run(scenario())
    head, _, body = heard.partition(b"\r\n\r\n")
    assert len(body) == (LARGE if sent else 0)
    assert (b"connection: close" in head) is bool(sent)


def test_the_body_of_an_answered_request_is_not_waited_for(monkeypatch):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
                heard = 0
                while heard < LARGE:
                    heard += len(await loop.sock_recv(client, 2**20))
                held = len(connections)
                with contextlib.suppress(ConnectionError):
                    for _ in range(30):
                        await loop.sock_sendall(client, b"a")
                        await asyncio.sleep(STALL_S / 10)
                return held, len(connections)

    assert asyncio.run(scenario()) == (1, 0)


def test_what_is_no_http_is_answered_with_a_problem(monkeypatch):
    async def scenario():
        async with _served(monkeypatch) as (place, _):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"no HTTP\r\n\r\n")
                heard = b""
                while chunk := await loop.sock_recv(client, 4096):
                    heard += chunk
                return heard

    head, _, body = asyncio.run(scenario()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", *[b"a" * 8192] * (LONGEST_HEAD // 8192 + 3)],
        [b"GET / HTTP/1.1\r\n" + b"X-Short: a\r\n" * (LONGEST_HEAD // 8 + 1) + b"\r\n"],
        [b"GET /" + b"a" * 2 * LONGEST_HEAD, b"a" * 2 * LONGEST_HEAD],
    ],
    ids=["one header without an end", "too many headers", "an address without an end"],
)
def test_a_head_that_is_too_long_is_refused(monkeypatch, pieces):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            monkeypatch.setattr(Connection, "stall_s", 600)  # it is not for standing still that it ends
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                heard = b""
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        await loop.sock_sendall(client, piece)
                        await asyncio.sleep(0.01)
                with contextlib.suppress(ConnectionError):
                    while chunk := await loop.sock_recv(client, 4096):
                        heard += chunk
                await _ended(connections)
                return heard, len(connections)

    heard, left = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert heard.startswith(b"HTTP/1.1 400 ") or not heard  # what comes after it may cross it, and the system drops it
    assert left == 0


def test_requests_without_an_end_on_one_connection_are_refused(monkeypatch):
    async def scenario():
        async with _served(monkeypatch) as (place, connections):
            monkeypatch.setattr(Connection, "stall_s", 600)
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
                heard = await loop.sock_recv(client, 4096)
                await _ended(connections)
                return heard, len(connections)

    heard, left = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert left == 0


@pytest.mark.parametrize("body", [b"", b"--x--"], ids=["without a body", "with one"])
def test_a_client_that_would_rather_speak_http_2_is_answered_again_and_again(monkeypatch, body):
    asked = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )

    async def scenario():
        async with _served(monkeypatch) as (place, _):
            with await _connected(place, buffer=2**20) as client:
                loop = asyncio.get_running_loop()
                for _ in range(3):
                    await loop.sock_sendall(client, asked)
                    heard = b""
                    while not heard.endswith(bytes(LARGE)):
                        chunk = await loop.sock_recv(client, 2**20)
                        assert chunk, "ended before its answer was whole"
                        heard += chunk
                    assert heard.startswith(b"HTTP/1.1 200 ")

    asyncio.run(scenario())


def test_as_many_connections_may_be_open_as_the_system_lets_a_process_have():
    script = "import resource as r, service.connections as c; c.use_connections(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    limited = ["sh", "-c", 'ulimit -Sn 100 && ulimit -Hn 300 && exec "$@"', "sh", sys.executable, "-c", script]
    shown = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert shown.stdout == "300 300\n"


def test_connections_beyond_half_of_the_files_are_ended_at_once(monkeypatch):
    monkeypatch.setattr("service.connections.resource.getrlimit", lambda _: (8, 8))
    monkeypatch.setattr("service.connections.resource.setrlimit", lambda *_: None)

    async def scenario():
        async with _served(monkeypatch, _small) as (place, connections):
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(await _connected(place)) for _ in range(9)]
                while len(connections) > 4:
                    await asyncio.sleep(0.01)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(clients[0], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                first = await loop.sock_recv(clients[0], 4096)
                with contextlib.suppress(ConnectionResetError):
                    assert await loop.sock_recv(clients[-1], 4096) == b""
                return first

    assert asyncio.run(scenario()).endswith(b"here")


def test_a_small_answer_comes_in_one_piece(monkeypatch):
    async def scenario():
        async with _served(monkeypatch, _small) as (place, _):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                pieces = []
                for _ in range(20):
                    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    pieces.append(await loop.sock_recv(client, 4096))
                return pieces

    for piece in asyncio.run(scenario()):
        head, _, body = piece.partition(b"\r\n\r\n")
        assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"here")


def test_a_head_does_not_wait_for_a_body_that_comes_later(monkeypatch):
    came = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await asyncio.wait_for(came.wait(), 20)
        await send({"type": "http.response.body", "body": b"at ", "more_body": True})
        await send({"type": "http.response.body", "body": b"last."})

    async def scenario():
        async with _served(monkeypatch, app) as (place, _):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                head = await asyncio.wait_for(loop.sock_recv(client, 4096), 10)
                came.set()
                body = b""
                while piece := await loop.sock_recv(client, 4096):
                    body += piece
                return head, body

    head, body = asyncio.run(scenario())
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert head.endswith(b"\r\n\r\n")
    assert body == b"at last."


def test_a_head_without_a_body_is_sent(monkeypatch):
    async def scenario():
        async with _served(monkeypatch, _small) as (place, _):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, 2 * b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
                answers = b""
                while answers.count(b"\r\n\r\n") < 2:
                    answers += await asyncio.wait_for(loop.sock_recv(client, 4096), 10)
                return answers

    assert asyncio.run(scenario()).count(b"HTTP/1.1 200 OK") == 2


def test_a_slow_reader_who_goes_on_is_served(monkeypatch):
    async def scenario():
        async with _served(monkeypatch) as (place, _):
            with await _connected(place) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                heard, start = 0, loop.time()
                while heard < LARGE:
                    chunk = await loop.sock_recv(client, 2**17)
                    assert chunk, "ended before its answer was whole"
                    heard += len(chunk)
                    if loop.time() - start < 4 * STALL_S:
                        await asyncio.sleep(0.02)
                return loop.time() - start

    assert asyncio.run(scenario()) > 4 * STALL_S


@pytest.mark.parametrize(
    ("limits", "pause", "status", "kind"),
    [({"stall_s": STALL_S}, STALL_S / 4, 408, "upload-too-slow"), ({"answer_s": STALL_S}, 60, 504, "answer-too-late")],
)
def test_a_body_that_stands_still_is_told_so_and_nobody_waits_for_ever(tmp_path, caplog, limits, pause, status, kind):
    write_bundle_into(tmp_path, "bright")
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(models=tmp_path, threads=1, device="cpu", **limits))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
    }
    sent = []

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(api(scope, receive, send), 60))
    start, body = sent
    assert start["status"] == status
    assert (b"connection", b"close") in start["headers"]
    problem = json.loads(body["body"])
    assert problem["type"] == f"urn:radiolucent:problem:{kind}"
    assert status == 408 or problem["request_id"] in caplog.text


def test_a_full_disk_is_told_from_other_errors(tmp_path):
    with pytest.raises(OSError, match="space") as full, open("/dev/full", "wb", buffering=0) as device:
        device.write(b"x")
    assert is_storage_full(full.value)
    assert not is_storage_full(FileNotFoundError(2, "no such file"))
    engine = create_engine(f"sqlite:///{tmp_path / 'small.sqlite'}")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count=2"))
        connection.execute(text("CREATE TABLE kept (content BLOB)"))
        with pytest.raises(OperationalError) as no_room:
            connection.execute(text("INSERT INTO kept VALUES (zeroblob(100000))"))
        with pytest.raises(OperationalError) as no_table:
            connection.execute(text("INSERT INTO lost VALUES (1)"))
    engine.dispose()
    assert is_storage_full(no_room.value)
    assert not is_storage_full(no_table.value)
