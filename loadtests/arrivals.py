"""Open-loop load: requests arrive when they are due, however slow the answers are (a Poisson process).

A closed loop waits for an answer before it asks again, so a slow service is asked less, and the requests that would
have waited longest are never made (coordinated omission: G. Tene, How not to measure latency, 2013). Here latency
counts from the moment at which a request was due, whether or not it could be sent then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from loadtests.answers import Verdict

Send = Callable[[], Awaitable[Verdict]]


@dataclass(slots=True)
class Arrival:
    """One request; times in seconds of the event loop's clock, NaN where it has not come to that."""

    due: float
    sent: float = float("nan")
    ended: float = float("nan")
    verdict: Verdict | None = None

    @property
    def ms(self) -> float:
        """Milliseconds from when it was due to the end of its answer."""
        return 1000 * (self.ended - self.due)


@dataclass(slots=True)
class Stream:
    """The requests of one rate so far, in the order in which they were due."""

    rate: float
    arrivals: list[Arrival] = field(default_factory=list[Arrival])

    def decided(self, now: float, limit_s: float, warm_up_s: float) -> list[Arrival]:
        """The requests after the warm-up that are answered, or due so long ago that they miss the limit anyway."""
        if not self.arrivals:
            return []
        first = self.arrivals[0].due + warm_up_s
        return [one for one in self.arrivals if first <= one.due <= now - limit_s]


@asynccontextmanager
async def offered(send: Send, rate: float, seed: int, timeout_s: float) -> AsyncGenerator[Stream, None]:
    """Requests at `rate` a second while the context is open; on leaving, those on their way are waited for.

    Args:
        send: makes one request.
        rate: mean arrivals a second.
        seed: of the arrivals.
        timeout_s: after which an answer is no longer waited for: it then counts as wrong.
    """
    stream, loop = Stream(rate), asyncio.get_running_loop()
    random = np.random.default_rng(seed)

    async def one(arrival: Arrival) -> None:
        arrival.sent = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                arrival.verdict = await send()
        except TimeoutError:
            arrival.verdict = Verdict("wrong", fault=f"no answer within {timeout_s:g} s")
        arrival.ended = loop.time()

    async def arrive(group: asyncio.TaskGroup) -> None:
        due = loop.time()
        while True:
            due += float(random.exponential(1 / rate))
            await asyncio.sleep(max(0.0, due - loop.time()))
            stream.arrivals.append(Arrival(due))
            group.create_task(one(stream.arrivals[-1]))

    async with asyncio.TaskGroup() as group:
        source = group.create_task(arrive(group))
        try:
            yield stream
        finally:
            source.cancel()
