"""What the service does with more than it can do: goodput and deadlines at several times its capacity.

    python -m benchmarks.overload [--cores N] [--json FILE]

Capacity is measured before and after every rate, for the machine's own speed drifts: closed loop, as many clients as
keep the engine busy, images a second; a row's is the mean of the two. In between requests of one image each arrive in
an open loop (Poisson, from a seed) at a multiple of it, each with `X-Deadline-Ms`; latency counts from when a request
should have been sent, so that a slow generator does not flatter the service. `goodput` is answers (status 200) within
the deadline a second, as a share of capacity; `corrected` takes the generator's CPU time off the wall time where
generator and service share the cores, which with `--cores` they do not; `of the peak` compares that with the best of
all rates, for an open loop with a deadline never keeps batches as full as a closed one without. `of the accepted in
time` is of the answers with status 200, and `refused in` is the median time in which the others learn that they are
refused.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from benchmarks.harness import Cell, add_cores, machine, parser, save, show
from benchmarks.http_efficiency import load
from benchmarks.request_parts import MARK, body_of
from benchmarks.served import Served, held_to, parted, started

_CLIENTS = 16  # of the closed loop
_IDLE_S = 2.0  # the server closes connections after five
_SLACK_S = 0.05  # what reading the answer may take in the generator


@dataclass(slots=True)
class Outcome:
    """Of one rate: statuses, seconds of answers and of refusals, and what was not answered."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    answered: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])


class Connections:
    """Keep-alive connections to the service, as many as are in use at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []  # and since when

    async def post(self, request: bytes) -> int:
        """The status of the answer to a whole request; 0 where the connection is closed instead."""
        try:
            return await self._posted(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0

    async def _posted(self, request: bytes) -> int:
        reader, writer = self._kept() or await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
        else:
            self._free.append((time.perf_counter(), reader, writer))
        return int(head.split()[1])

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last, unless it has idled for so long that the server may be closing it."""
        while self._free:
            since, reader, writer = self._free.pop()
            if time.perf_counter() - since < _IDLE_S:
                return reader, writer
            writer.close()
        return None


def request_of(port: int, deadline_ms: int) -> bytes:
    """POST /v1/explain with one image."""
    body = body_of(1)
    head = (
        f"POST /v1/explain HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Deadline-Ms: {deadline_ms}\r\n"
        f"Content-Type: multipart/form-data; boundary={MARK}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def offer(port: int, rate: float, seconds: float, deadline_ms: int, seed: int) -> Outcome:
    """Send at a rate, whatever becomes of what was sent before."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(1, int(rate * seconds)))
    connections, request, outcome = Connections(port), request_of(port, deadline_ms), Outcome()
    begin = time.perf_counter()

    async def one(due: float) -> None:
        status = await connections.post(request)
        took = time.perf_counter() - due
        outcome.statuses[status] += 1
        (outcome.answered if status == 200 else outcome.refused).append(took)

    async with asyncio.TaskGroup() as tasks:
        for due in begin + np.cumsum(gaps):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(float(due)))
    return outcome


def row_of(
    times: float, outcome: Outcome, capacity: float, wall: float, taken: float, deadline_ms: int
) -> dict[str, Cell]:
    """One line of the table; of the `wall` seconds the generator has `taken` some from the service."""
    limit = deadline_ms / 1000 + _SLACK_S
    good = sum(each <= limit for each in outcome.answered)
    count = sum(outcome.statuses.values())
    return {
        "offered, times capacity": times,
        "requests": count,
        "goodput": good / wall / capacity,
        "corrected": good / (wall - taken) / capacity,
        "of the accepted in time": good / max(1, len(outcome.answered)),
        "p95 of answers, ms": 1000 * float(np.percentile(outcome.answered, 95)) if outcome.answered else None,
        "503": outcome.statuses[503],
        "504": outcome.statuses[504],
        "others": count - outcome.statuses[200] - outcome.statuses[503] - outcome.statuses[504],
        "refused in, ms": 1000 * float(np.median(outcome.refused)) if outcome.refused else None,
    }


def capacity_of(served: Served, seconds: float, share: float) -> float:
    """Images a second of the closed loop, without the `share` of the generator's CPU time that the service lacked."""
    found = load(served, _CLIENTS, 1, seconds)
    return found["images"] / (found["wall"] - found["generator"] * share)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("overload", __doc__)
    made.add_argument("--seconds", type=float, default=12.0, help="of every rate; default: %(default)s")
    made.add_argument("--deadline-ms", type=int, default=1000, help="default: %(default)s")
    made.add_argument("--times", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0, 10.0], help="of capacity")
    add_cores(made)
    options = made.parse_args(arguments)
    rows: list[dict[str, Cell]] = []
    serving, asking = parted(options.cores)
    share = 0.0 if options.cores else 1 / len(asking)
    with started(cores=serving) as served, held_to(asking):
        port = int(served.url.rpartition(":")[2])
        load(served, _CLIENTS, 1, 2.0)
        capacities = [capacity_of(served, options.seconds / 2, share)]
        for number, times in enumerate(options.times):
            own, begin = time.process_time(), time.perf_counter()
            outcome = asyncio.run(offer(port, times * capacities[-1], options.seconds, options.deadline_ms, number))
            wall, generator = time.perf_counter() - begin, time.process_time() - own
            capacities.append(capacity_of(served, options.seconds / 2, share))
            capacity = fmean(capacities[-2:])
            rows.append(row_of(times, outcome, capacity, wall, share * generator, options.deadline_ms))
    peak = max(float(row["corrected"] or 0) for row in rows)
    rows = [row | {"of the peak": float(row["corrected"] or 0) / peak} for row in rows]
    where = machine("cpu", 0)
    capacity = fmean(capacities)
    show(f"overload: capacity {capacity:.1f} images a second, deadline {options.deadline_ms} ms", rows, where)
    save(options, where, capacity=capacity, capacities=capacities, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
