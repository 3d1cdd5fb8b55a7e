"""A worker without work rests until there is some, and looks for itself after a while."""

from __future__ import annotations

import asyncio

import pytest

from service.idle import Idle


@pytest.fixture
def _no_look(monkeypatch):
    monkeypatch.setattr("service.idle._LOOK_S", 3600.0)


@pytest.mark.usefixtures("_no_look")
def test_every_rest_ends_where_there_is_work():
    async def scenario() -> None:
        idle = Idle()
        rests = [asyncio.create_task(idle.rest()) for _ in range(2)]
        await asyncio.sleep(0)
        idle.end()
        await asyncio.wait_for(asyncio.gather(*rests), 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(idle.rest(), 0.05)

    asyncio.run(scenario())


@pytest.mark.usefixtures("_no_look")
def test_work_that_came_while_nobody_rested_is_looked_at_once():
    async def scenario() -> None:
        idle = Idle()
        idle.end()
        await asyncio.wait_for(idle.rest(), 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(idle.rest(), 0.05)

    asyncio.run(scenario())


def test_a_rest_ends_by_itself(monkeypatch):
    monkeypatch.setattr("service.idle._LOOK_S", 0.01)
    asyncio.run(asyncio.wait_for(Idle().rest(), 10))
