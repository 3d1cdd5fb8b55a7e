"""How throughput and memory grow with worker processes and cores.

    python -m benchmarks.scaling [--device cuda] [--workers N ...] [--cores N ...] [--loads CxN ...] [--json FILE]

The service with several numbers of workers (`RADIOLUCENT_WORKERS`), held to several numbers of cores (as `taskset`
does), is asked by clients that post one request after another each. Load generator and service share the cores, so
the generator's CPU time, divided by the number of cores, is taken off the wall time. Rounds go through all
arrangements in turn; figures are medians. `of one worker` is against the fewest workers on as many cores. `busiest` is
the share of the workers' CPU time that the busiest had: connections are kept, and the kernel gives each to whichever
worker accepts it. Memory is the proportional set size (PSS) of supervisor and workers after the load: what they share
counts once; on CUDA also all that is in use on the first GPU.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median

import psutil
from tqdm import tqdm

from benchmarks.harness import Cell, add_device, gpu_memory, machine, parser, save, show
from benchmarks.http_efficiency import load
from benchmarks.served import held_to, started

Load = tuple[int, int]  # clients, images a request
_WARM_S = 3.0


def arranged(
    workers: int, cores: set[int], loads: Sequence[Load], seconds: float, environment: Mapping[str, str]
) -> dict[str, float]:
    """Images a second of each load, seconds to readiness of all, MiB, and the busiest worker's share."""
    with held_to(cores), started({"RADIOLUCENT_WORKERS": str(workers), **environment}) as served:
        children = serving(served.pid, workers)
        for clients, images in loads:
            load(served, clients, images, _WARM_S)
        found: dict[str, float] = {"ready": served.seconds_to_ready}
        before = [sum(child.cpu_times()[:2]) for child in children]
        for clients, images in loads:
            run = load(served, clients, images, seconds)
            found[f"{clients} x {images}"] = run["images"] / (run["wall"] - run["generator"] / len(cores))
        spent = [sum(child.cpu_times()[:2]) - old for child, old in zip(children, before, strict=True)]
        found["busiest"] = max(spent) / sum(spent)
        whole = [psutil.Process(served.pid), *children]
        found["mib"] = sum(each.memory_full_info().pss for each in whole) / 2**20
        if environment["RADIOLUCENT_DEVICE"] == "cuda":
            found["gpu_mib"] = gpu_memory() / 2**20
        return found


def serving(supervisor: int, workers: int) -> list[psutil.Process]:
    """The workers, once all of them listen.

    Raises:
        RuntimeError: they do not within a minute.
    """
    for _ in range(600):
        found = [p for p in psutil.Process(supervisor).children() if "_bentoml_impl.worker.service" in p.cmdline()]
        settled = [p for p in found if sum(p.cpu_times()[:2]) > 0 and p.cpu_percent(0.1) < 5.0]
        if len(settled) == workers:
            return settled
        time.sleep(0.1)
    raise RuntimeError("the workers were not at rest within a minute")


def rows_of(found: dict[tuple[int, int], list[dict[str, float]]], loads: Sequence[Load]) -> list[dict[str, Cell]]:
    """The table, one row for each number of cores and workers."""
    middle = {key: {name: median(run[name] for run in runs) for name in runs[0]} for key, runs in found.items() if runs}
    rows: list[dict[str, Cell]] = []
    first = min(workers for _, workers in middle)
    for (cores, workers), figures in middle.items():
        row: dict[str, Cell] = {"cores": cores, "workers": workers}
        for clients, images in loads:
            name, one = f"{clients} x {images}", middle[cores, first]
            row[f"{name}, images/s"] = figures[name]
            row[f"{name}, of one worker"] = figures[name] / one[name]
        row |= {"busiest": figures["busiest"], "MiB": figures["mib"], "ready, s": figures["ready"]}
        rows.append(row | ({"GPU, MiB": figures["gpu_mib"]} if "gpu_mib" in figures else {}))
    return rows


def load_named(text: str) -> Load:
    """`CxN`: so many clients, so many images a request. Raises ValueError."""
    clients, images = map(int, text.split("x"))
    return clients, images


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    made = parser("scaling", __doc__)
    made.add_argument("--seconds", type=float, default=8.0, help="of every load; default: %(default)s")
    made.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    made.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    made.add_argument("--loads", type=load_named, nargs="+", default=[(32, 1), (4, 8)], help="default: 32x1 4x8")
    add_device(made)
    options = made.parse_args(arguments)
    all_cores = sorted(os.sched_getaffinity(0))
    arrangements = [
        (cores, workers) for cores in options.cores if cores <= len(all_cores) for workers in options.workers
    ]
    found: dict[tuple[int, int], list[dict[str, float]]] = {arrangement: [] for arrangement in arrangements}
    environment = {"RADIOLUCENT_DEVICE": options.device}
    for cores, workers in tqdm(arrangements * options.rounds, unit="service", leave=False):
        held = set(all_cores[:cores])
        found[cores, workers].append(arranged(workers, held, options.loads, options.seconds, environment))
    rows, where = rows_of(found, options.loads), machine(options.device, 0)
    show("workers and cores", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
