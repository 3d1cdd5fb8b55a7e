"""How near POST /v1/explain comes to ONNX Runtime alone on the same cores, and what else costs processor time.

    python -m benchmarks.http_efficiency [--device cuda] [--json FILE]

`ONNX Runtime` is the bundle's graph in this process, in batches of several sizes, the best of which is the measure. The
others are a running service with so many clients that post so many images a request, one request after another each;
overlays are not asked for. The images are PNG files, and in the rows that say so the same as DICOM instances
(MONOCHROME2, 512 x 512, one frame, not compressed). Load generator and service share the cores, so the generator's
CPU time, divided by the number of cores, is taken off the wall time (`corrected`); the plain rate stands beside it.
`p50` is the median time of a batch, and of a request. `beyond` is the service's CPU time an image less that of the best
batch of ONNX Runtime: what HTTP costs in all, small batches and caches that others have filled included. `outside` is
the CPU time an image of all threads but those of inference: the busiest, as many as cores, one on CUDA. The stages are
wall time of one image, from the service's own histograms (`radiolucent_stage_seconds`, per request) in the run of one
client and one image. The parts are CPU time of what a request of one image consists of besides, each run alone in this
process; what `outside` has more is the HTTP server, threads that wake each other, logs and metrics
(docs/observability.md).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import psutil

from benchmarks.harness import Cell, add_device, machine, parser, save, show
from benchmarks.request_parts import DICOM, MARK, MODALITY, MODEL, PNG, body_of, parts_of
from benchmarks.served import Served, started
from loadtests.payloads import uploads
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.registry import load_models
from service.settings import SHIPPED_MODELS

BATCHES = (1, 8, 32)
LOADS = (  # clients, images a request, of which kind
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


def raw(seconds: float, device: str) -> dict[int, dict[str, float]]:
    """ONNX Runtime alone: wall and CPU seconds an image by batch size."""
    model = load_models(SHIPPED_MODELS, threads=0, device=device).model(MODEL)
    spec = model.bundle.manifest.preprocessing
    frames = [frame for file in uploads()[MODALITY] for frame in read_frames(file.content, file.name)]
    pixels = np.stack([prepare(frame, spec).pixels for frame in frames])[..., np.newaxis]
    found: dict[int, dict[str, float]] = {}
    for size in BATCHES:
        batch = np.concatenate([pixels] * (size // len(pixels) + 1))[:size]
        model.engine.run(batch)
        own, start = time.process_time(), time.perf_counter()
        took: list[float] = []
        while (begun := time.perf_counter()) - start < seconds:
            model.engine.run(batch)
            took.append(time.perf_counter() - begun)
        done = len(took) * size
        found[size] = {
            "wall": (time.perf_counter() - start) / done,
            "cpu": (time.process_time() - own) / done,
            "p50": float(np.median(took)),
        }
    return found


def rows_of(
    alone: Sequence[dict[int, dict[str, float]]], loaded: dict[tuple[int, int, str], list[dict[str, float]]]
) -> list[dict[str, Cell]]:
    """Medians over the rounds, as a table."""
    engine = {
        size: {what: float(np.median([each[size][what] for each in alone])) for what in ("wall", "cpu", "p50")}
        for size in BATCHES
    }
    best = min(engine.values(), key=lambda each: each["wall"])
    rows: list[dict[str, Cell]] = [
        {
            "what": f"ONNX Runtime, batch {size}",
            "images a second": 1 / each["wall"],
            "corrected": None,
            "of the best": best["wall"] / each["wall"],
            "p50, ms": 1000 * each["p50"],
            "CPU ms an image": 1000 * each["cpu"],
            "beyond": None,
            "outside": None,
        }
        for size, each in engine.items()
    ]
    cores = len(os.sched_getaffinity(0))
    for (clients, images, kind), runs in loaded.items():
        plain = [run["images"] / run["wall"] for run in runs]
        corrected = float(np.median([run["images"] / (run["wall"] - run["generator"] / cores) for run in runs]))
        cpu = float(np.median([run["service"] / run["images"] for run in runs]))
        rows.append(
            {
                "what": f"{clients} clients, {images} images a request{'' if kind == PNG else f', {kind}'}",
                "images a second": float(np.median(plain)),
                "corrected": corrected,
                "of the best": corrected * best["wall"],
                "p50, ms": 1000 * float(np.median([run["p50"] for run in runs])),
                "CPU ms an image": 1000 * cpu,
                "beyond": 1000 * (cpu - best["cpu"]),
                "outside": 1000 * float(np.median([run["outside"] / run["images"] for run in runs])),
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("http_efficiency", __doc__)
    made.add_argument("--seconds", type=float, default=12.0, help="of a load; default: %(default)s")
    made.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    add_device(made)
    options = made.parse_args(arguments)
    alone: list[dict[int, dict[str, float]]] = []
    loaded: dict[tuple[int, int, str], list[dict[str, float]]] = {}
    split: dict[str, float] = {}
    with started({"RADIOLUCENT_DEVICE": options.device}) as served:
        for clients, images, kind in LOADS:
            load(served, clients, images, 1.0, kind)
        for _ in range(options.rounds):
            alone.append(raw(options.seconds / 2, options.device))
            for clients, images, kind in LOADS:
                before = stages(served.url)
                run = load(served, clients, images, options.seconds, kind, int(options.device == "cuda"))
                loaded.setdefault((clients, images, kind), []).append(run)
                if (clients, images, kind) == LOADS[0]:
                    after = stages(served.url)
                    split = {
                        stage: 1000 * (total - before[stage][0]) / (count - before[stage][1])
                        for stage, (total, count) in after.items()
                    }
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
