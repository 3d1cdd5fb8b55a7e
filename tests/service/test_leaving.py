"""Clients that leave before they are answered, against a real uvicorn: nothing is computed for them any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import uvicorn
from bright import offer, png, write_bundle_into
from prometheus_client import REGISTRY

from service.access.gate import Gate
from service.access.rates import Limits, Rates
from service.api import make_api
from service.connections import use_connections, while_client_waits
from service.edge import Edge
from service.errors import Overloaded
from service.pipeline import Pipeline
from service.scheduling import PREDICTION, Lane
from service.settings import Settings

PICTURE = png(np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8))  # of more bytes than are read ahead
LONG = {"method": "rise", "budget": "100000", "deadline_ms": "200000"}
PATIENCE_S = 60


@contextlib.asynccontextmanager
async def _uvicorn(app, listening: socket.socket):
    use_connections()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await task


class _Server:
    """The service at `place`; its audit log in `log`."""

    def __init__(self, folder, **settings) -> None:
        offer(write_bundle_into(folder / "models", "bright"), "rise")
        self.log = folder / "audit.log"
        self.settings = Settings(
            models=folder / "models", threads=1, device="cpu", audit_log=self.log, max_explanations=1, **settings
        )
        self.pipeline = Pipeline(self.settings)

    @contextlib.asynccontextmanager
    async def served(self):
        api = make_api("test")
        api.state.pipeline = self.pipeline
        api.state.gate = Gate(self.settings, b"key", Rates(Limits(self.settings.rate, self.settings.max_concurrent)))
        listening = socket.create_server(("127.0.0.1", 0))
        self.place = listening.getsockname()
        async with _uvicorn(Edge(api, api), listening):
            yield self

    async def asked(self, route: str, *, files: int = 1, times: int = 1, **fields: str):
        """A connection on which this was asked."""
        parts = [("images", (f"{number}.png", PICTURE)) for number in range(files)]
        url = f"http://127.0.0.1:{self.place[1]}/v1/{route}"
        request = httpx.Request("POST", url, data={"model": "bright"} | fields, files=parts)
        head = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw)
        reader, writer = await asyncio.open_connection(*self.place)
        writer.write((f"POST /v1/{route} HTTP/1.1\r\n".encode() + head + b"\r\n" + request.read()) * times)
        await writer.drain()
        return reader, writer

    async def ended(self, count: int) -> list[int]:
        """The statuses of the requests in the audit log, once there are so many."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            lines = self.log.read_text().splitlines()
            if len(lines) >= count:
                return [json.loads(line)["status"] for line in lines]
            await asyncio.sleep(0.05)
        raise AssertionError("it goes on")


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is taken up whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
    return int(head.split()[1])


def _computed() -> float:
    return REGISTRY.get_sample_value("radiolucent_batch_images_sum", {"model": "bright"}) or 0.0


@pytest.mark.parametrize("abrupt", [True, False], ids=["reset", "closed"])
def test_an_explanation_ends_when_its_client_leaves(tmp_path, abrupt):
    async def scenario():
        async with _Server(tmp_path).served() as server:
            _, writer = await server.asked("explain", files=8, **LONG)
            while server.pipeline._explaining.acquire(blocking=False):  # until it is explained
                server.pipeline._explaining.release()
                await asyncio.sleep(0.02)
            (writer.transport.abort if abrupt else writer.close)()
            statuses = await server.ended(1)
            until = time.monotonic() + PATIENCE_S
            while not server.pipeline._explaining.acquire(blocking=False):
                assert time.monotonic() < until, "the explanation goes on"
                await asyncio.sleep(0.02)
            return statuses

    assert asyncio.run(scenario()) == [499]


def test_a_client_is_seen_to_leave_though_its_body_came_faster_than_it_was_read(tmp_path):
    asking, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        asking.set()
        while (await receive())["more_body"]:
            pass
        begun.set()
        with while_client_waits(scope):
            await asyncio.sleep(PATIENCE_S)
        ended.set()

    async def scenario():
        place = str(tmp_path / "socket")
        listening = socket.socket(socket.AF_UNIX)  # all that is written at once is read at once
        listening.bind(place)
        listening.listen()
        async with _uvicorn(app, listening):
            _, writer = await asyncio.open_unix_connection(place)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 120000\r\n\r\n")
            await asking.wait()
            writer.write(bytes(120_000))
            await begun.wait()
            writer.close()
            await ended.wait()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S / 2))


def test_queued_images_of_a_client_that_left_are_not_computed(tmp_path):
    hold = threading.Event()

    async def scenario():
        async with _Server(tmp_path).served() as server:
            Lane(server.pipeline._engine, PREDICTION).submit(hold.wait, PATIENCE_S)
            before = _computed()
            _, leaving = await server.asked("predict", files=3)
            reader, staying = await server.asked("predict")
            batcher = server.pipeline.batchers["bright"]
            while batcher._images < 4:
                await asyncio.sleep(0.02)
            leaving.close()
            statuses = await server.ended(1)
            hold.set()
            status = await _status(reader)
            staying.close()
            return statuses, status, _computed() - before

    assert asyncio.run(scenario()) == ([499], 200, 1)


def test_requests_in_a_row_and_at_once_on_one_connection_are_all_answered(tmp_path):
    async def scenario():
        async with _Server(tmp_path).served() as server:
            reader, writer = await server.asked("predict", times=3)
            found = [await _status(reader) for _ in range(3)]
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            found.append(await _status(reader))
            writer.close()
            return found, await server.ended(3)

    assert asyncio.run(scenario()) == ([200] * 4, [200] * 3)


def test_an_explanation_counts_until_its_thread_has_ended(tmp_path):
    pipeline = _Server(tmp_path).pipeline
    given_up, begun, hold = threading.Event(), threading.Event(), threading.Event()

    def explaining():
        begun.set()
        return given_up.wait(PATIENCE_S) and hold.wait(PATIENCE_S)

    async def scenario():
        task = asyncio.create_task(pipeline.explain_slowly(explaining, given_up, bounded=True))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert given_up.is_set()
        with pytest.raises(Overloaded):
            await pipeline.explain_slowly(explaining, given_up, bounded=True)
        hold.set()
        while True:
            with contextlib.suppress(Overloaded):
                return await pipeline.explain_slowly(explaining, given_up, bounded=True)
            await asyncio.sleep(0.01)

    assert asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
