"""The search on a real server whose capacity is known: one request at a time, 10 ms each."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from loadtests.answers import Verdict
from loadtests.arrivals import offered
from loadtests.capacity import cost_per_thousand
from loadtests.proof import decide, design_effect, share_within
from loadtests.search import Level, hold, search

SERVICE_S = 0.01  # so that no more than 100 a second are answered


@asynccontextmanager
async def server():
    busy = asyncio.Lock()

    async def answer(_request: web.Request) -> web.Response:
        async with busy:
            await asyncio.sleep(SERVICE_S)
        return web.Response(text="done")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sender():
    async with server() as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send() -> Verdict:
            async with session.post(url) as answer:
                await answer.read()
                return Verdict("answered" if answer.status == 200 else "wrong", 1)

        yield send


def test_a_rate_below_capacity_is_met_and_one_above_is_missed_early():
    async def held(rate: float) -> Level:
        async with sender() as send:
            return await hold(send, rate, {0.95: 600.0}, 3.0, seed=1)  # a busy machine stands still for a while

    low, high = asyncio.run(held(40.0)), asyncio.run(held(300.0))
    assert (low.decision, low.good) == ("met", 1.0)
    assert low.p50_ms >= 1000 * SERVICE_S
    assert high.decision == "missed"
    assert high.seconds < low.seconds  # not held to the end
    assert high.p95_ms > 600


def test_latency_counts_from_when_a_request_was_due():
    async def slow() -> Verdict:
        time.sleep(0.05)  # the generator itself is held up
        return Verdict("answered", 1)

    async def run():
        async with offered(slow, 100.0, seed=0, timeout_s=10) as stream:
            await asyncio.sleep(0.5)
        return [one.ms for one in stream.arrivals if not math.isnan(one.ended)]

    assert max(asyncio.run(run())) > 150  # a closed loop would see 50 ms each


def test_an_answer_that_never_comes_is_wrong_and_a_fault_of_ours_is_raised():
    async def never() -> Verdict:
        await asyncio.sleep(60)
        return Verdict("answered")

    async def broken() -> Verdict:
        raise RuntimeError("a bug")

    async def run(send):
        async with offered(send, 50.0, seed=0, timeout_s=0.1) as stream:
            await asyncio.sleep(0.2)
        return stream

    arrivals = asyncio.run(run(never)).arrivals
    assert arrivals
    assert all(one.verdict is not None and one.verdict.outcome == "wrong" for one in arrivals)
    with pytest.raises(ExceptionGroup):
        asyncio.run(run(broken))


def level_at(capacity, tried, unlucky=()):
    async def level(rate: float) -> Level:
        tried.append(rate)
        decision = "met" if rate <= capacity and len(tried) not in unlucky else "missed"
        return Level(rate, decision, 100, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0)

    return level


@pytest.mark.parametrize("start", [1.0, 20.0, 95.0, 400.0])
def test_the_search_comes_within_its_resolution(start):
    tried: list[float] = []
    found = asyncio.run(search(level_at(100.0, tried), start, 0.05))
    assert found.rate is not None
    assert 100 / 1.05 <= found.rate <= 100
    assert found.levels[-1].decision == "met"
    assert found.levels[-1].rate == pytest.approx(found.rate, abs=1e-3)


def test_what_is_not_confirmed_is_lowered():
    tried: list[float] = []
    asyncio.run(search(level_at(100.0, tried), 50.0, 0.05))
    again: list[float] = []
    found = asyncio.run(search(level_at(100.0, again, unlucky=(len(tried),)), 50.0, 0.05))
    assert found.rate == pytest.approx(tried[-1] / 1.05, abs=1e-3)


def test_no_capacity_is_no_rate():
    tried: list[float] = []
    assert asyncio.run(search(level_at(0.0, tried), 50.0, 0.05)).rate is None
    assert min(tried) < 3


def test_sixty_good_ones_show_95_percent_and_forty_do_not():
    assert decide([10.0] * 60, {0.95: 20.0}, 0.95) == "met"
    assert decide([10.0] * 40, {0.95: 20.0}, 0.95) == "unproven"
    assert decide([10.0] * 60, {0.5: 20.0, 0.95: 9.0}, 0.95) == "missed"
    assert decide([10.0] * 100, {0.99: 20.0}, 0.95) == "met"  # reached, and cannot be shown with so few
    assert decide([10.0] * 97 + [math.inf] * 3, {0.99: 20.0}, 0.95) == "unproven"
    assert decide([], {0.95: 20.0}, 0.95) == "unproven"


def test_bounds_hold_as_often_as_they_say_even_where_neighbours_are_alike():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        common = np.repeat(random.normal(0, 1, 40), 10)  # ten in a row wait together
        ms = np.exp(0.8 * common + 0.6 * random.normal(0, 1, 400))
        limit = math.exp(1.2816)  # 90 % of a standard normal
        held += share_within(ms.tolist(), limit, 0.95).low <= 0.9
    assert held >= 180
    assert design_effect(np.repeat(random.normal(0, 1, 40), 10)) > 3
    assert design_effect(random.normal(0, 1, 400)) < 2


def test_cost():
    assert cost_per_thousand(3.6, 1.0) == pytest.approx(1.0)
    assert cost_per_thousand(0.36, 20.0) == pytest.approx(0.005)
