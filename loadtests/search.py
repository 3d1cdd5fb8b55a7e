"""The search for the highest rate that meets an objective."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtests.arrivals import Arrival, Send, Stream, offered
from loadtests.objectives import GOOD
from loadtests.proof import Decision, decide
from loadtests.samples import quantile

EARLY, LATE = (0.25, 0.5, 0.75), (1.0, 2.0, 3.0)  # looks at a rate, in shares of its time; met is decided late only
LEAST = 120  # requests of a rate: half as many show 95 %, where they are independent and all within the limit
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Level:
    """One rate: requests a second, what was decided, and the latencies in ms of those judged.

    `good` is the share of right answers; `late_ms` is how late 99 % of the requests were sent at most: the load
    generator's own delay, which is part of the latencies.
    """

    rate: float
    decision: Decision
    requests: int
    good: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    late_ms: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that was shown to meet the objective, and confirmed; None where none was. All levels held."""

    rate: float | None
    levels: tuple[Level, ...]


async def hold(send: Send, rate: float, limits: dict[float, float], seconds: float, seed: int) -> Level:
    """Offer a rate until it is decided whether it meets the limits.

    That they are met is decided after `seconds` (longer where those would be fewer than `LEAST` requests), when a
    backlog has had its time to grow, or after two or three times as many; that they are missed, earlier, too. Looks
    share the error of a decision (Bonferroni): met is wrong with 5 % at most, missed with 7.5 % (an early look errs
    with a sixth of 5 %, a late one with a third). What is not decided is unproven.
    """
    limit_s, seconds = max(limits.values()) / 1000, max(seconds, LEAST / rate)
    warm_up, start = min(2.0, seconds / 10), time.perf_counter()
    decision: Decision = "unproven"
    judged: list[Arrival] = []
    looked = -warm_up
    async with offered(send, rate, seed, timeout_s=max(10.0, 4 * limit_s)) as stream:
        for look in (*EARLY, *LATE):
            await asyncio.sleep(look * seconds - looked)
            looked = look * seconds
            judged = stream.decided(asyncio.get_running_loop().time(), limit_s, warm_up)
            looks = len(LATE) if look in LATE else len(EARLY) + len(LATE)
            decision = decide([latency_of(one) for one in judged], limits, 1 - 0.05 / looks)
            if decision == "missed" or (decision == "met" and look in LATE):
                break
    return _level(stream, decision, judged, time.perf_counter() - start)


def latency_of(arrival: Arrival) -> float:
    """In ms; infinite without a right answer."""
    good = arrival.verdict is not None and arrival.verdict.outcome in GOOD
    return arrival.ms if good else math.inf


def _level(stream: Stream, decision: Decision, judged: list[Arrival], seconds: float) -> Level:
    ms = [latency_of(one) for one in judged]
    good = [value for value in ms if math.isfinite(value)]
    p50, p95, p99 = (round(quantile(good, share), 1) if good else -1.0 for share in (0.5, 0.95, 0.99))
    late = quantile([1000 * (one.sent - one.due) for one in judged], 0.99) if judged else 0.0
    share = len(good) / len(ms) if ms else 0.0
    return Level(
        round(stream.rate, 3), decision, len(ms), round(share, 4), p50, p95, p99, round(late, 1), round(seconds, 1)
    )


async def search(level: Callable[[float], Awaitable[Level]], start: float, resolution: float) -> Found:
    """The highest rate that `level` decides to be met, to `resolution` (0.05: 5 %), confirmed by another run.

    Upwards in steps by half from `start` (downwards where that is missed), bisection of the last step, then
    confirmation: a rate that is not confirmed is lowered by the resolution until one is, five times at most.
    """
    levels: list[Level] = []

    async def met(rate: float) -> bool:
        levels.append(await level(rate))
        return levels[-1].decision == "met"

    low, high = await _bracket(met, start)
    if low is None:
        return Found(None, tuple(levels))
    while high / low > 1 + resolution:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if await met(middle) else (low, middle)
    for _ in range(5):
        if await met(low):
            return Found(round(low, 3), tuple(levels))
        low /= 1 + resolution
    return Found(None, tuple(levels))


async def _bracket(met: Callable[[float], Awaitable[bool]], start: float) -> tuple[float | None, float]:
    """A rate that is met and one that is not, `_GROWTH` apart; None where nothing down to a 20th of `start` is met."""
    if await met(start):
        low = start
        while await met(low * _GROWTH):
            low *= _GROWTH
        return low, low * _GROWTH
    high = start
    while high > start / 20:
        if await met(high / _GROWTH):
            return high / _GROWTH, high
        high /= _GROWTH
    return None, high
