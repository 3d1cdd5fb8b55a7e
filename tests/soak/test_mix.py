"""What the soak sends is still what the service takes."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from tests.faults.load import MODEL
from tests.faults.scene import stage
from tests.soak.mix import LONGEST_S, MIX, UNHURRIED, warm_up

_TIMES = 5


async def asked() -> dict[str, set[int]]:
    chance = random.Random(0)
    async with stage(UNHURRIED) as service, httpx.AsyncClient(base_url=service.address, timeout=LONGEST_S) as client:
        await warm_up(client, MODEL, MIX)
        return {kind.__name__: {(await kind(client, chance, MODEL)).status_code for _ in range(_TIMES)} for kind in MIX}


@pytest.mark.server
def test_every_kind_of_request_gets_an_answer_that_is_right():
    for (name, found), (_, right) in zip(asyncio.run(asked()).items(), MIX.values(), strict=True):
        assert found <= set(right), name
