"""What a site of many studies needs: a simulation from the measured stage times, not a measurement.

    python -m benchmarks.capacity_model [--json FILE]

Assumed: studies arrive at random (Poisson), each of 20 to 200 images (uniform) that arrive at once; a load balancer or
the kernel gives each to any worker, whatever that has to do; a worker first reads images (one after another as far as
Python's lock goes, the rest in as many threads as it has cores), then computes what has come in batches of at most 64.
Times of both come from `http_efficiency.json`. On a processor both stages have the same cores, so that a batch takes
their work together. On a GPU the stages overlap; a GPU's time is divided evenly among its workers. No GPU was measured:
its times are options, and the table has several. `study` is the time from a study's arrival to its last answer.

First the model is checked against what was measured: single images at the rates of `capacity.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Cell, machine, parser, save, show

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
RESULTS = Path(__file__).resolve().parent / "results"
_SLICES = (20, 200)
_THREADS = 4  # that decode, at most
_STUDIES = 3000  # that a worker of the simulation gets


@dataclass(frozen=True, slots=True)
class Worker:
    """Seconds of one worker: of reading an image, of a batch, and of each image in it."""

    read: float
    batch: float
    image: float
    largest: int = 64

    @property
    def most(self) -> float:
        """Images a second that it can do."""
        return 1 / max(self.read, self.image + self.batch / self.largest)


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds an image, of a batch besides its images, and the cores that they were measured on.

    `locked` is processor time that only one thread of a process can spend, `free` what any can, `forward` the graph's.
    """

    locked: float
    free: float
    forward: float
    batch: float
    cores: int


def measured(result: dict[str, Any]) -> Measured:
    """From a result of `benchmarks.http_efficiency`."""
    rows = {row["what"]: row for row in result["rows"]}
    alone = [row for what, row in rows.items() if what.startswith("ONNX")]
    best = max(alone, key=lambda row: row["images a second"])
    beyond = rows["32 clients, 1 images a request"]["beyond"]
    free = result["parts"]["inflate"] + result["parts"]["prepare"]
    single = 1000 / rows["ONNX Runtime, batch 1"]["images a second"]
    each = 1000 / best["images a second"]
    return Measured(
        max(beyond - free, 0.0), free, best["CPU ms an image"], max(single - each, 0.0), result["machine"]["cores"]
    )


def on_processor(times: Measured, cores: int) -> Worker:
    """A worker with so many cores of the machine that was measured."""
    work = (times.locked + times.free + times.forward) / cores
    return Worker(times.free / 1000, times.batch / 1000 * times.cores / cores, work / 1000)


def on_gpu(times: Measured, cores: int, image_ms: float, batch_ms: float, sharing: int) -> Worker:
    """One of `sharing` workers of a GPU, with so many cores."""
    read = max(times.locked, (times.locked + times.free) / min(cores, _THREADS))
    return Worker(read / 1000, sharing * batch_ms / 1000, sharing * image_ms / 1000)


def waits(worker: Worker, arrivals: Floats, images: Counts) -> Floats:
    """Seconds from each arrival to the last answer; arrivals in seconds, ascending, with so many images each."""
    order = np.arange(images.sum())
    study = np.repeat(np.arange(len(arrivals)), images)
    ready = (order + 1) * worker.read + np.maximum.accumulate(arrivals[study] - order * worker.read)
    done = np.zeros(len(arrivals))
    now, first = 0.0, 0
    while first < len(ready):
        now = max(now, ready[first])
        last = min(first + worker.largest, int(np.searchsorted(ready, now, "right")))
        now += worker.batch + (last - first) * worker.image
        done[study[first:last]] = now
        first = last
    return done - arrivals


def offered(worker: Worker, workers: int, an_hour: float, seed: int = 0) -> Floats:
    """Seconds of the studies that one of the workers gets."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(3600 * workers / an_hour, _STUDIES))
    return waits(worker, arrivals, random.integers(_SLICES[0], _SLICES[1], _STUDIES, endpoint=True))


def most_studies(worker: Worker, workers: int, limit_s: float) -> float:
    """Studies an hour of which 95 % are answered within the limit, to 2 %."""
    low, high = 0.0, 3600 * workers * worker.most / (sum(_SLICES) / 2)
    while high - low > 0.02 * high:
        middle = (low + high) / 2
        if np.percentile(offered(worker, workers, middle), 95) <= limit_s:
            low = middle
        else:
            high = middle
    return low


def row_of(what: str, worker: Worker, workers: int, an_hour: float, limit_s: float) -> dict[str, Cell]:
    """One line of the table."""
    busy = an_hour * sum(_SLICES) / 2 / 3600 / workers / worker.most
    found = offered(worker, workers, an_hour) if busy < 1 else None
    return {
        "what": what,
        "workers": workers,
        "busy": busy,
        "study p50, s": float(np.percentile(found, 50)) if found is not None else None,
        "study p95, s": float(np.percentile(found, 95)) if found is not None else None,
        f"studies an hour, p95 of {limit_s:g} s": most_studies(worker, workers, limit_s),
        "limited by": "reading" if worker.read >= worker.image + worker.batch / worker.largest else "computing",
    }


def checked(worker: Worker, levels: Sequence[dict[str, Any]]) -> list[dict[str, Cell]]:
    """The model beside what was measured, at the rates that were met."""
    rows: list[dict[str, Cell]] = []
    for level in (level for level in levels if level["decision"] == "met"):
        arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / level["rate"], 20_000))
        found = 1000 * waits(worker, arrivals, np.ones(len(arrivals), int))
        row: dict[str, Cell] = {"images a second": level["rate"]}
        for quantile in (50, 95, 99):
            row[f"p{quantile} measured, ms"] = level[f"p{quantile}_ms"]
            row[f"p{quantile} of the model"] = float(np.percentile(found, quantile))
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    made = parser("capacity_model", __doc__)
    made.add_argument("--studies", type=float, default=1000.0, help="an hour; default: %(default)s")
    made.add_argument("--limit-s", type=float, default=10.0, help="for a study; default: %(default)s")
    made.add_argument("--gpus", type=int, default=8, help="default: %(default)s")
    made.add_argument("--gpu-ms", type=float, nargs="+", default=[0.3, 1.0, 3.0], help="an image, assumed: %(default)s")
    made.add_argument("--gpu-batch-ms", type=float, default=2.0, help="a batch besides, assumed: %(default)s")
    made.add_argument("--gpu-cores", type=int, default=4, help="of each worker, assumed: %(default)s")
    options = made.parse_args(arguments)
    times = measured(json.loads((RESULTS / "http_efficiency.json").read_bytes()))
    capacity = json.loads((RESULTS / "capacity.json").read_bytes())
    here = on_processor(times, times.cores)
    check = checked(here, capacity["levels"])
    rows = [
        row_of(f"{times.cores} cores a worker", here, workers, options.studies, options.limit_s)
        for workers in (1, 2, 3, 4, 8)
    ]
    for image_ms in options.gpu_ms:
        for sharing in (1, 2, 4):
            worker = on_gpu(times, options.gpu_cores, image_ms, options.gpu_batch_ms, sharing)
            what = f"{options.gpus} GPUs, {image_ms:g} ms an image"
            rows.append(row_of(what, worker, options.gpus * sharing, options.studies, options.limit_s))
    where = machine("simulated", 0)
    show("the model and what was measured", check, where)
    show(f"{options.studies:g} studies an hour, simulated", rows, where)
    save(options, where, times={name: getattr(times, name) for name in times.__slots__}, check=check, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
