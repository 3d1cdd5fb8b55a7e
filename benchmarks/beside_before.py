"""Is this checkout as fast as another one? Images a second of both services, in turns, in one run.

    python -m benchmarks.beside_before OTHER      OTHER: a checkout of another commit (git worktree add OTHER COMMIT)

Both services run on this machine; while one is asked, the other has nothing to do. DICOM files (MONOCHROME2, 512 x 512,
not compressed) and PNG of the same pictures go in, 16 images a request, two clients; JSON comes out.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.request_parts import DICOM, MARK, PNG, body_of
from benchmarks.served import ROOT, started

_IMAGES, _CLIENTS = 16, 2


def images_a_second(url: str, body: bytes, path: str, seconds: float) -> float:
    """Ask with some clients, one request after another each."""
    until = time.perf_counter() + seconds

    def ask(_: int) -> int:
        answered = 0
        with httpx.Client(base_url=url, timeout=120) as client:
            while time.perf_counter() < until:
                content_type = f"multipart/form-data; boundary={MARK}"
                client.post(path, content=body, headers={"Content-Type": content_type}).raise_for_status()
                answered += _IMAGES
        return answered

    start = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        answered = sum(threads.map(ask, range(_CLIENTS)))
    return answered / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 1 where this checkout is more than 5 % slower for DICOM."""
    made = parser("beside_before", __doc__)
    made.add_argument("other", type=Path, metavar="OTHER", help="folder of the other checkout")
    made.add_argument("--seconds", type=float, default=10.0, help="of a load; default: %(default)s")
    made.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = made.parse_args(arguments)
    rates: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as services:
        urls = [services.enter_context(started(folder=folder)).url for folder in (ROOT, options.other.resolve())]
        loads = [(kind, path) for kind in (DICOM, PNG) for path in ("/v1/predict", "/v1/explain")]
        for number in tqdm(range(options.rounds + 1), desc="rounds", unit="round"):
            for kind, path in loads:
                body = body_of(_IMAGES, kind)
                order = (0, 1) if number % 2 else (1, 0)
                found = {which: images_a_second(urls[which], body, path, options.seconds) for which in order}
                if number:  # the first warms up
                    rates.setdefault((kind, path), []).append((found[0], found[1]))
    rows: list[dict[str, Cell]] = []
    for (kind, path), both in rates.items():
        here, there = np.median(np.array(both), axis=0)
        ratio = float(np.median([one / other for one, other in both]))
        rows.append(
            {
                "images": kind,
                "route": path,
                "here, images/s": float(here),
                "there, images/s": float(there),
                "median ratio": ratio,
            }
        )
    where = machine("cpu", 0)
    show("beside another checkout", rows, where)
    save(options, where, rows=rows)
    slow = [row for row in rows if row["images"] == DICOM and float(row["median ratio"] or 0) < 0.95]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
