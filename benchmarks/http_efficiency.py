"""How near POST /v1/explain comes to ONNX Runtime alone on the same cores, and what else costs processor time.

    python -m benchmarks.http_efficiency [--device cuda] [--json FILE]

`ONNX Runtime` is the bundle's graph in this process, in batches of several sizes, the best of which is the measure. The
others are a running service with so many clients that post so many images a request, one request after another each;
overlays are not asked for. The images are PNG files, and in the rows that say so the same as DICOM instances
(MONOCHROME2, 512 x 512, one frame, not compressed). Load generator and service share the cores, so the generator's
CPU time, divided by the number of cores, is taken off the wall time (`corrected`); the plain rate stands beside it.
ONNX Runtime is measured before and after every load, and each load is compared with what stands beside it, so that a
machine that others slow down for minutes does not favour either. `p50` is the median time of a batch, and of a
request, `of batch 1` that as a multiple of a batch of one image. `beyond` is the service's CPU time an image less that
of the best batch of ONNX Runtime: what HTTP costs in all, small batches and caches that others have filled included.
`outside` is the CPU time an image of all threads but those of inference: the busiest, as many as cores, one on CUDA.
The stages are wall time of one image, from the service's own histograms (`radiolucent_stage_seconds`, per request) in
the last run of one client and one image. The parts are CPU time of what a request of one image consists of besides,
each run alone in this process; what `outside` has more is the HTTP server, threads that wake each other, logs and
metrics (docs/observability.md).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.harness import Cell, add_device, machine, parser, save, show
from benchmarks.request_parts import DICOM, MARK, MODALITY, MODEL, PNG, body_of, parts_of
from benchmarks.served import Served, started
from loadtests.payloads import uploads
from service.engine import Engine
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.registry import load_models
from service.settings import SHIPPED_MODELS

BATCHES = (1, 8, 32)
Load = tuple[int, int, str]
LOADS: tuple[Load, ...] = (  # clients, images a request, of which format
    *((*load, PNG) for load in ((1, 1), (8, 1), (32, 1), (1, 8), (1, 32))),
    *((*load, DICOM) for load in ((1, 1), (32, 1), (1, 32))),
)
_STAGE = re.compile(r"radiolucent_stage_seconds_(sum|count)\{([^}]*)\} ([0-9.e+-]+)")


def client(url: str, body: bytes, images: int, until: float) -> list[float]:
    """Post until the time has come; returns the seconds of each answer.

    Raises:
        RuntimeError: an answer is none, or an image failed.
    """
    at = urlsplit(url)
    connection = HTTPConnection(at.hostname or "", at.port, timeout=300)
    headers = {"Content-Type": f"multipart/form-data; boundary={MARK}"}
    took: list[float] = []
    while (start := time.perf_counter()) < until:
        connection.request("POST", "/v1/explain", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200 or content.count(b'"status":"ok"') != images:
            raise RuntimeError(f"HTTP status {answer.status}: {content[:300]!r}")
        took.append(time.perf_counter() - start)
    connection.close()
    return took


def thread_seconds(pid: int) -> dict[int, float]:
    """CPU time so far of each thread of a process and its children, by its id."""
    process = psutil.Process(pid)
    threads = [thread for each in (process, *process.children(recursive=True)) for thread in each.threads()]
    return {thread.id: thread.user_time + thread.system_time for thread in threads}


def stages(url: str) -> dict[str, tuple[float, float]]:
    """Sum in seconds and count of every stage so far, of the explanations of the model."""
    with urlopen(f"{url}/metrics") as answer:  # noqa: S310 - always http on the loopback interface
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for what, labels, value in _STAGE.findall(text):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if named["model"] == MODEL and named["method"] != "none":
            found.setdefault(named["stage"], {})[what] = float(value)
    return {stage: (both["sum"], both["count"]) for stage, both in found.items()}


def load(
    served: Served, clients: int, images: int, seconds: float, kind: str = PNG, computing: int = 0
) -> dict[str, float]:
    """Images, wall time, CPU time of service and generator, and an answer's median time, for some seconds of load.

    `computing` threads infer; 0 is one for each core.
    """
    body = body_of(images, kind)
    before, own, start = thread_seconds(served.pid), time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        futures = [threads.submit(client, served.url, body, images, start + seconds) for _ in range(clients)]
        took = [seconds for future in futures for seconds in future.result()]
    wall = time.perf_counter() - start
    spent = sorted(total - before.get(thread, 0.0) for thread, total in thread_seconds(served.pid).items())
    return {
        "images": len(took) * images,
        "p50": float(np.median(took)),
        "wall": wall,
        "service": sum(spent),
        "outside": sum(spent[: -(computing or len(os.sched_getaffinity(0)))]),
        "generator": time.process_time() - own,
    }


@dataclass(frozen=True)
class Alone:
    """ONNX Runtime alone, seconds: an image's by wall and CPU time, and the median time of a batch."""

    wall: float
    cpu: float
    p50: float


def raw(engine: Engine, pixels: NDArray[np.uint8], seconds: float) -> dict[int, Alone]:
    """Every batch size in turn, each for some seconds and at least once."""
    found: dict[int, Alone] = {}
    for size in BATCHES:
        batch = np.concatenate([pixels] * (size // len(pixels) + 1))[:size]
        own, start = time.process_time(), time.perf_counter()
        took: list[float] = []
        while not took or time.perf_counter() - start < seconds:
            begun = time.perf_counter()
            engine.run(batch)
            took.append(time.perf_counter() - begun)
        done = len(took) * size
        wall, cpu = time.perf_counter() - start, time.process_time() - own
        found[size] = Alone(wall / done, cpu / done, float(np.median(took)))
    return found


def median_of(passes: Sequence[dict[int, Alone]]) -> dict[int, Alone]:
    """Medians of every figure, by batch size."""
    return {size: Alone(*np.median([astuple(each[size]) for each in passes], axis=0)) for size in BATCHES}


def rows_of(
    alone: Sequence[dict[int, Alone]], loaded: Sequence[tuple[Load, dict[str, float]]]
) -> list[dict[str, Cell]]:
    """Medians over the rounds, as a table. `loaded[n]` was measured between `alone[n]` and `alone[n + 1]`."""
    over_all = median_of(alone)
    fastest = min(BATCHES, key=lambda size: over_all[size].wall)
    rows: list[dict[str, Cell]] = [
        {
            "what": f"ONNX Runtime, batch {size}",
            "images a second": 1 / each.wall,
            "corrected": None,
            "of the best": over_all[fastest].wall / each.wall,
            "p50, ms": 1000 * each.p50,
            "of batch 1": each.p50 / over_all[1].p50,
            "CPU ms an image": 1000 * each.cpu,
            "beyond": None,
            "outside": None,
        }
        for size, each in over_all.items()
    ]
    for asked in LOADS:
        found = [
            compared(run, median_of(alone[number : number + 2]), fastest)
            for number, (what, run) in enumerate(loaded)
            if what == asked
        ]
        clients, images, kind = asked
        row: dict[str, Cell] = {
            "what": f"{clients} clients, {images} images a request{'' if kind == PNG else f', {kind}'}"
        }
        rows.append(row | {name: float(np.median([each[name] for each in found])) for name in found[0]})
    return rows


def compared(run: dict[str, float], beside: dict[int, Alone], fastest: int) -> dict[str, float]:
    """One run of a load against ONNX Runtime beside it."""
    best, cpu = beside[fastest], run["service"] / run["images"]
    corrected = run["images"] / (run["wall"] - run["generator"] / len(os.sched_getaffinity(0)))
    return {
        "images a second": run["images"] / run["wall"],
        "corrected": corrected,
        "of the best": corrected * best.wall,
        "p50, ms": 1000 * run["p50"],
        "of batch 1": run["p50"] / beside[1].p50,
        "CPU ms an image": 1000 * cpu,
        "beyond": 1000 * (cpu - best.cpu),
        "outside": 1000 * run["outside"] / run["images"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("http_efficiency", __doc__)
    made.add_argument("--seconds", type=float, default=12.0, help="of a load; default: %(default)s")
    made.add_argument("--alone", type=float, default=2.0, help="seconds of each batch size alone; default: %(default)s")
    made.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    add_device(made)
    options = made.parse_args(arguments)
    model = load_models(SHIPPED_MODELS, threads=0, device=options.device).model(MODEL)
    spec = model.bundle.manifest.preprocessing
    frames = [frame for file in uploads()[MODALITY] for frame in read_frames(file.content, file.name)]
    pixels = np.stack([prepare(frame, spec).pixels for frame in frames])[..., np.newaxis]
    alone: list[dict[int, Alone]] = []
    loaded: list[tuple[Load, dict[str, float]]] = []
    split: dict[str, float] = {}
    with started({"RADIOLUCENT_DEVICE": options.device}) as served:
        for clients, images, kind in LOADS:
            load(served, clients, images, 1.0, kind)
        raw(model.engine, pixels, 0.0)
        alone.append(raw(model.engine, pixels, options.alone))
        for asked in tqdm(LOADS * options.rounds, desc="loads", unit="load"):
            clients, images, kind = asked
            before = stages(served.url)
            run = load(served, clients, images, options.seconds, kind, int(options.device == "cuda"))
            loaded.append((asked, run))
            if asked == LOADS[0]:
                after = stages(served.url)
                split = {
                    stage: 1000 * (total - before[stage][0]) / (count - before[stage][1])
                    for stage, (total, count) in after.items()
                }
            alone.append(raw(model.engine, pixels, options.alone))
    rows, parts, where = rows_of(alone, loaded), parts_of(options.device), machine(options.device, 0)
    show(f"http_efficiency: {MODEL}", rows, where)
    show(
        "stages of one image alone, ms",
        [{"stage": stage, "ms": value} for stage, value in sorted(split.items(), key=lambda item: -item[1])],
        where,
    )
    show("parts of a request, CPU ms", [{"part": part, "ms": value} for part, value in parts.items()], where)
    save(options, where, rows=rows, stages=split, parts=parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
