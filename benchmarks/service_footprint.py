"""What the service takes: seconds until it is ready, and resident memory before and after work, with all models.

Memory is the sum over the service's processes of the proportional set size (shared pages are counted once), in MiB,
where the system gives it, and of the resident set size.
"""

from __future__ import annotations

import sys
from statistics import median

import httpx
import psutil

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.served import Served, post, started
from loadtests.payloads import uploads

MIB = 1024 * 1024


def memory(pid: int) -> tuple[float, float]:
    """Proportional and resident set size of a process and its children, in MiB."""
    root = psutil.Process(pid)
    infos = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
    return sum(getattr(i, "pss", i.rss) for i in infos) / MIB, sum(i.rss for i in infos) / MIB


def work(served: Served, requests: int) -> int:
    """Explain eight images with every model, several times; returns how many models there are."""
    with httpx.Client(base_url=served.url, timeout=300) as client:
        models = [m for m in client.get("/v1/models").json()["models"] if m["task"] == "classification"]
        for model in models:
            files = [(u.name, u.content) for u in uploads()[model["kind"]["modalities"][0]]]
            for _ in range(requests):
                post(client, "/v1/explain", {"model": model["id"], "overlay": "true"}, files)
    return len(models)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("service_footprint", __doc__)
    made.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    made.add_argument("--requests", type=int, default=5, help="of 8 images, for each model; default: %(default)s")
    options = made.parse_args(arguments)
    ready: list[float] = []
    idle: list[tuple[float, float]] = []
    busy: list[tuple[float, float]] = []
    models = 0
    for _ in range(options.starts):
        with started() as served:
            ready.append(served.seconds_to_ready)
            idle.append(memory(served.pid))
            models = work(served, options.requests)
            busy.append(memory(served.pid))
    rows: list[dict[str, Cell]] = [
        {"what": f"seconds until ready with {models} classifiers", "median": median(ready), "largest": max(ready)},
        *(
            {"what": f"{kind}, {name}, MiB", "median": median(values), "largest": max(values)}
            for name, measured in (("ready", idle), ("after work", busy))
            for kind, values in zip(
                ("proportional set size", "resident set size"), zip(*measured, strict=True), strict=True
            )
        ),
    ]
    where = machine("cpu", 0)
    show("service_footprint: all shipped models", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
