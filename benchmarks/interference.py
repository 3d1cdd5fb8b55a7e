"""What small requests feel of slow explanations and of large requests beside them.

    python -m benchmarks.interference [--device cuda] [--cores N] [--json FILE]

A reading room asks for one image with its inline explanation at a time, at random moments (an open loop from a seed,
at a share of what the service can do). Beside it there is nothing, or clients that ask for slow explanations without
a pause (`shap`, `integrated_gradients`, `rise` with a deadline), or clients that post many images without a pause.
The rounds take turns, so that a noisy machine disturbs all alike; latency counts from when a request should have been
sent. `times alone` is to be at most 1.2 for slow explanations; beside large requests, which are inline too, it says
how fair the queue is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np

from benchmarks.harness import Cell, add_cores, add_device, machine, parser, save, show
from benchmarks.request_parts import MODALITY, MODEL
from benchmarks.served import held_to, parted, started
from loadtests.payloads import uploads


def ask(client: httpx.Client, images: int, **fields: str) -> bool:
    """One request; whether it was answered: one with a deadline may find that there is no time for it.

    Raises:
        httpx.HTTPStatusError: it is refused.
    """
    files = uploads()[MODALITY]
    sent = [("images", (str(number), files[number % len(files)].content)) for number in range(images)]
    answer = client.post("/v1/explain", data={"model": MODEL, **fields}, files=sent)
    if "deadline_ms" in fields and answer.status_code == 504:
        return False
    answer.raise_for_status()
    return True


@contextmanager
def beside(url: str, clients: int, images: int, fields: dict[str, str]) -> Generator[Callable[[], tuple[int, int]]]:
    """Clients that ask without a pause until the end; gives how many images were answered, how many too late."""
    over, done, missed = threading.Event(), [0] * clients, [0] * clients

    def work(number: int) -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            while not over.is_set():
                answered = ask(client, images, **fields)
                done[number] += images * answered
                missed[number] += images * (not answered)

    with ThreadPoolExecutor(max(1, clients)) as threads:
        working = [threads.submit(work, number) for number in range(clients)]
        time.sleep(1.0 if clients else 0.0)
        try:
            yield lambda: (sum(done), sum(missed))
        finally:
            over.set()
    for each in working:
        each.result()


def reading_room(url: str, rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds of every request from when it was due."""
    dues = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, max(1, int(rate * seconds))))
    begin = time.perf_counter()
    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(64) as threads:

        def one(due: float) -> float:
            ask(client, 1)
            return time.perf_counter() - begin - due

        asked = []
        for due in dues:
            time.sleep(max(0.0, begin + due - time.perf_counter()))
            asked.append(threads.submit(one, float(due)))
        return [each.result() for each in asked]


def rows_of(
    latencies: dict[str, list[list[float]]], rates: dict[str, list[tuple[float, float]]]
) -> list[dict[str, Cell]]:
    """Percentiles of all rounds together, against those of nothing beside."""

    def percentile(name: str, share: float) -> float:
        return 1000 * float(np.percentile(np.concatenate(latencies[name]), share))

    (alone, *_) = latencies
    return [
        {
            "beside": name,
            "requests": sum(map(len, rounds)),
            "p50, ms": percentile(name, 50),
            "p95, ms": percentile(name, 95),
            "p50, times alone": percentile(name, 50) / percentile(alone, 50),
            "p95, times alone": percentile(name, 95) / percentile(alone, 95),
            "images a second beside": float(np.mean([done for done, _ in rates[name]])),
            "too late, a second": float(np.mean([missed for _, missed in rates[name]])),
        }
        for name, rounds in latencies.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    made = parser("interference", __doc__)
    made.add_argument("--seconds", type=float, default=10.0, help="of every load in every round; default: %(default)s")
    made.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    made.add_argument("--rate", type=float, default=5.0, help="single images a second; default: %(default)s")
    add_device(made)
    add_cores(made)
    options = made.parse_args(arguments)
    serving, asking = parted(options.cores)
    environment = {"RADIOLUCENT_INLINE_SECONDS": "600", "RADIOLUCENT_DEVICE": options.device}
    loads: dict[str, tuple[int, int, dict[str, str]]] = {
        "nothing": (0, 0, {}),
        "2 clients, shap": (2, 1, {"method": "shap", "budget": "300"}),
        "2 clients, integrated_gradients": (2, 1, {"method": "integrated_gradients", "budget": "60"}),
        "2 clients, rise in 5 s": (2, 1, {"method": "rise", "deadline_ms": "5000"}),
        "1 client, 64 images a request": (1, 64, {}),
    }
    latencies: dict[str, list[list[float]]] = {name: [] for name in loads}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    with started(environment, serving) as served, held_to(asking):
        reading_room(served.url, options.rate, 3.0, 0)
        for seed in range(options.rounds):
            for name, (clients, images, fields) in loads.items():
                begin = time.perf_counter()
                with beside(served.url, clients, images, fields) as answered:
                    latencies[name].append(reading_room(served.url, options.rate, options.seconds, seed))
                    done, missed = answered()
                    took = time.perf_counter() - begin
                    rates[name].append((done / took, missed / took))
    rows, where = rows_of(latencies, rates), machine(options.device, 0)
    show(f"single images at {options.rate:g} a second", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
