"""Continuous load: closed-loop clients that write down what became of every request, and check every answer.

Every request has a connection of its own, so that a connection that ends while idle is no failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx
import numpy as np
from bright import BIAS, WEIGHT
from brittle import Mark, marked, mean_of

REFUSED, BROKEN, SILENT = "refused", "broken", "silent"  # outcomes of requests without an answer
MODEL = "brittle"
_PATIENCE_S = 30.0
_MANY = 4  # images of a large request
_LARGE = 0.3  # share of large requests
_LABELS = ("bright", "dark", "middle")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what became of it.

    Attributes:
        began: perf_counter when it was sent.
        ended: perf_counter when its answer, or its failure, was complete.
        outcome: HTTP status, with the kind of the problem where it is one; or REFUSED (no connection), BROKEN (the
            connection ended without an answer), SILENT (no answer within 30 s).
        images: what became of each, for an answer 200: `ok`, or the kind of its problem.
        marks: how the images were marked.
        wrong: the answer is not the one to this request.
        request_id: of the answer.
    """

    began: float
    ended: float
    outcome: str
    marks: tuple[Mark | None, ...]
    images: tuple[str, ...] = ()
    wrong: bool = False
    request_id: str = ""

    @property
    def good(self) -> bool:
        return self.outcome == "200" and not self.wrong

    @property
    def failed(self) -> bool:
        """Whether the fault reached a request that has no part in it."""
        return not self.good and not (self.outcome == "500 model-failed" and all(self.marks))


@dataclass(slots=True)
class Load:
    """What the clients have seen so far."""

    exchanges: list[Exchange] = field(default_factory=list[Exchange])

    def outcomes(self) -> dict[str, int]:
        return dict(sorted(Counter(one.outcome for one in self.exchanges).items()))

    def recovery(self, since: float) -> float:
        """Seconds from `since` to the end of the first good answer after the last request that failed; 0: none did."""
        failed = [one.ended for one in self.exchanges if one.failed and one.ended >= since]
        if not failed:
            return 0.0
        good = [one.ended for one in self.exchanges if one.good and one.ended > max(failed)]
        return min(good) - since if good else float("inf")

    def p95(self, start: float, end: float) -> float:
        """Latency of the good answers that began between, ms."""
        taken = [one.ended - one.began for one in self.exchanges if one.good and start <= one.began < end]
        return round(1000 * float(np.percentile(taken, 95)), 1) if taken else float("nan")


@contextlib.asynccontextmanager
async def load(address: str, *, clients: int = 8, marks: Mapping[Mark, float] | None = None) -> AsyncIterator[Load]:
    """Keep `clients` asking until the block ends; what was begun is then waited for.

    Args:
        address: of the service.
        clients: at once.
        marks: shares of images that are marked.
    """
    seen, stop = Load(), asyncio.Event()
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=address, timeout=_PATIENCE_S, limits=limits) as client:
        tasks = [asyncio.create_task(_ask_on(client, seen, stop, marks or {}, seed)) for seed in range(clients)]
        try:
            yield seen
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def _ask_on(
    client: httpx.AsyncClient, seen: Load, stop: asyncio.Event, marks: Mapping[Mark, float], seed: int
) -> None:
    chance = random.Random(seed)
    kinds, shares = [None, *marks], [1 - sum(marks.values()), *marks.values()]
    while not stop.is_set():
        count = _MANY if chance.random() < _LARGE else 1
        asked = [(chance.choices(kinds, shares)[0], chance.randrange(1, 255)) for _ in range(count)]
        exchange = await ask(client, asked)
        seen.exchanges.append(exchange)
        if exchange.outcome == REFUSED:
            await asyncio.sleep(0.05)


async def ask(client: httpx.AsyncClient, asked: list[tuple[Mark | None, int]]) -> Exchange:
    """One request for an explanation of images with these marks and grey levels."""
    marks = tuple(mark for mark, _ in asked)
    files = [("images", (f"{place}.png", marked(mark, level))) for place, (mark, level) in enumerate(asked)]
    began = perf_counter()
    try:
        answer = await client.post("/v1/explain", data={"model": MODEL, "target": "all"}, files=files)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return Exchange(began, perf_counter(), REFUSED, marks)
    except httpx.TimeoutException:
        return Exchange(began, perf_counter(), SILENT, marks)
    except httpx.TransportError:
        return Exchange(began, perf_counter(), BROKEN, marks)
    ended, body = perf_counter(), answer.json()
    if answer.status_code != 200:
        outcome = f"{answer.status_code} {_kind_of(body)}"
        return Exchange(began, ended, outcome, marks, request_id=body.get("request_id", ""))
    images = tuple(
        "ok" if one["status"] == "ok" else one["error"]["type"].rpartition(":")[2] for one in body["results"]
    )
    wrong = not _is_answer_to(asked, body["results"])
    return Exchange(began, ended, "200", marks, images, wrong, body["request_id"])


def _kind_of(problem: dict[str, Any]) -> str:
    return problem["type"].rpartition(":")[2]


def _is_answer_to(asked: list[tuple[Mark | None, int]], results: list[dict[str, Any]]) -> bool:
    """Whether names are in order, and every map adds up to the logit of its own image."""
    if [one["name"] for one in results] != [f"{place}.png" for place in range(len(asked))]:
        return False
    for (mark, level), one in zip(asked, results, strict=True):
        if one["status"] != "ok":
            continue
        found = {each["target"]: np.mean(each["saliency"]) for each in one["explanations"]}
        logits = WEIGHT * mean_of(mark, level) / 255 + BIAS
        if not all(abs(found[name] + BIAS[k] - logits[k]) < 0.02 for k, name in enumerate(_LABELS)):
            return False
    return True
