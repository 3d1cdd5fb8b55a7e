"""What the service takes: seconds until it is ready, and resident memory before and after work, with all models.

Memory is the sum over the service's processes of the proportional set size (shared pages are counted once), in MiB,
where the system gives it, and of the resident set size. The mixed load is, in the last start, 64 images in one request,
predicted and explained, and every method that the models offer; its peak is the sum of the processes' own.
"""

from __future__ import annotations

import sys
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import httpx
import psutil
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.served import Served, post, started
from loadtests.payloads import uploads

MIB = 1024 * 1024
_MANY = 64  # images; the service takes no more in one request
_BUDGET = "64"
_PATIENT = {"RADIOLUCENT_INLINE_SECONDS": "600"}  # so that slow methods need no job


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


def peak(pid: int) -> float:
    """Sum of the largest resident set sizes that a process and its children have had, in MiB."""
    root = psutil.Process(pid)
    found = 0
    for process in (root, *root.children(recursive=True)):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return found / 1024


def mixed(served: Served) -> None:
    """The largest requests, and every method of every classifier."""
    with httpx.Client(base_url=served.url, timeout=600) as client:
        for model in client.get("/v1/models").json()["models"]:
            if model["task"] != "classification":
                continue
            drawn = uploads()[model["kind"]["modalities"][0]]
            files = [(u.name, u.content) for u in drawn]
            many = list(islice(cycle(files), _MANY))
            post(client, "/v1/predict", {"model": model["id"]}, many)
            post(client, "/v1/explain", {"model": model["id"], "overlay": "true"}, many)
            for method in tqdm([each["method"] for each in model["explanations"]], desc=model["id"], leave=False):
                fields = {"model": model["id"], "method": method, "budget": _BUDGET}
                post(client, "/v1/explain", fields, files[:1])


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
    loaded: dict[str, float] = {}
    for start in range(options.starts):
        with started(_PATIENT) as served:
            ready.append(served.seconds_to_ready)
            idle.append(memory(served.pid))
            models = work(served, options.requests)
            busy.append(memory(served.pid))
            if start + 1 == options.starts:
                mixed(served)
                proportional, _ = memory(served.pid)
                loaded = {"proportional set size, after a mixed load": proportional, "peak resident": peak(served.pid)}
    rows: list[dict[str, Cell]] = [
        {"what": f"seconds until ready with {models} classifiers", "median": median(ready), "largest": max(ready)},
        *(
            {"what": f"{kind}, {name}, MiB", "median": median(values), "largest": max(values)}
            for name, measured in (("ready", idle), ("after work", busy))
            for kind, values in zip(
                ("proportional set size", "resident set size"), zip(*measured, strict=True), strict=True
            )
        ),
        *({"what": f"{name}, MiB", "median": value, "largest": value} for name, value in loaded.items()),
    ]
    where = machine("cpu", 0)
    show("service_footprint: all shipped models", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
