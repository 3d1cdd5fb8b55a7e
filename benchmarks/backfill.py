"""Images a second of `python -m service.backfill` against raw ONNX Runtime on the same cores, in one run.

    python -m benchmarks.backfill [--device cuda] [--json FILE]

`ONNX Runtime` is the bundle's graph in this process, in batches of 32, on images that are prepared already, before and
after every archive: the better of one session with a thread for each core and a session of one thread for each core,
on CUDA one session on the first GPU.
The archives are drawn: PNG of 512 x 512 and DICOM (MR, 16 bits, uncompressed) of the same. `steady` is a long run's
rate: it counts from the eighth shard done, when Ray's own processes are up, until as many images are left as may be
read ahead, so that as many were read meanwhile as were answered; `with start-up` is the whole command on this short
archive, with Ray, the workers and the model in it. `CPU ms` is processor time an image in the same window, of all
processes of the run, Ray's among them; beside it that of ONNX Runtime alone, and their ratio, which other work on the
machine disturbs less than the rates.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from benchmarks.harness import Cell, add_device, machine, parser, save, show
from loadtests.payloads import uploads
from service.bundle import read_bundle
from service.engine import Engine, open_engine
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.settings import SHIPPED_MODELS
from service.types import Grey8
from tests.dicom_writers import classic_mr, saved

MODEL, MODALITY, BATCH = "brain-mri-resnet50", "MR", 32
STARTED = 8  # shards
IMAGE = 224 * 224  # bytes of one that is read ahead


def contents(kind: str) -> list[bytes]:
    """Eight different files."""
    files = [file.content for file in uploads()[MODALITY]]
    if kind == "png":
        return files
    pixels = [read_frames(content, "")[0].pixels.astype(np.uint16) * 16 for content in files]
    return [saved(ds) for ds in classic_mr(pixels, "backfill")]


def write_archive(folder: Path, files: Sequence[bytes], count: int) -> None:
    """So many names in folders of a hundred, of files that are there once."""
    for number in range(count):
        (file := folder / f"{number // 100:04d}" / f"{number:06d}").parent.mkdir(parents=True, exist_ok=True)
        if number < len(files):
            file.write_bytes(files[number])
        else:
            file.hardlink_to(folder / "0000" / f"{number % len(files):06d}")


def raw(sessions: Sequence[Engine], images: Grey8, seconds: float) -> dict[str, float]:
    """Wall and CPU seconds an image of the forward pass alone, every session in a thread of its own."""

    def work(engine: Engine) -> int:
        engine.run(images)
        done = 0
        while time.perf_counter() - start < seconds:
            engine.run(images)
            done += len(images)
        return done

    with ThreadPoolExecutor(len(sessions)) as threads:
        for engine in sessions:
            engine.run(images)
        own, start = time.process_time(), time.perf_counter()
        done = sum(threads.map(work, sessions)) + len(images) * len(sessions)
        wall = time.perf_counter() - start
    return {"wall": wall / done, "cpu": (time.process_time() - own) / done}


def best_raw(arrangements: Sequence[Sequence[Engine]], images: Grey8, seconds: float) -> dict[str, float]:
    """Of the arrangement that is faster."""
    return min((raw(sessions, images, seconds / 2) for sessions in arrangements), key=lambda each: each["wall"])


def backfilled(source: Path, out: Path, engines: int, options: argparse.Namespace) -> dict[str, float]:
    """One whole run as a process of its own.

    Raises:
        RuntimeError: it failed, or an image did.
    """
    import pyarrow.parquet as pq

    command = [sys.executable, "-m", "service.backfill", str(source), str(out), "--model", MODEL]
    shard, images = options.shard, options.images
    sizes = ["--shard", str(shard), "--ahead-mib", str(options.ahead_mib), "--engines", str(engines)]
    start = time.perf_counter()
    seen: dict[int, float] = {}
    counted: list[tuple[int, float, float]] = []  # shards done, when, CPU seconds so far
    settings, quiet = os.environ | {"RADIOLUCENT_DEVICE": options.device}, subprocess.DEVNULL
    process = subprocess.Popen([*command, *sizes, "--batch", str(BATCH)], env=settings, stdout=quiet, stderr=quiet)
    while process.poll() is None:
        time.sleep(0.2)
        shards = len(list((out / "results").glob("[0-9]*.parquet")))
        if shards > (counted[-1][0] if counted else 0):
            watch(process.pid, seen)
            counted.append((shards, time.perf_counter(), sum(seen.values())))
    wall = time.perf_counter() - start
    table = pq.read_table(out / "results", columns=["problem"])
    if process.returncode or table.num_rows != images or table.column("problem").null_count != images:
        raise RuntimeError("the run failed, or an image did")
    first = next(each for each in counted if each[0] >= STARTED)
    ahead = -(-options.ahead_mib * 2**20 // (IMAGE * shard)) * shard
    last = [each for each in counted if shard * each[0] <= images - ahead][-1]
    answered = shard * (last[0] - first[0])
    return {"wall": wall / images, "steady": (last[1] - first[1]) / answered, "cpu": (last[2] - first[2]) / answered}


def watch(pid: int, seen: dict[int, float]) -> None:
    """Note the CPU seconds of a process and all below it, by process."""
    try:
        for each in (root := psutil.Process(pid), *root.children(recursive=True)):
            seen[each.pid] = sum(each.cpu_times()[:2])
    except psutil.NoSuchProcess:  # it ended meanwhile; what was noted of it stays
        return


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("backfill", __doc__)
    made.add_argument("--images", type=int, default=1152, help="of each archive (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=8.0, help="of each raw measurement (default: %(default)s)")
    made.add_argument("--engines", type=int, nargs="+", default=[2], help="default: %(default)s")
    made.add_argument("--kinds", nargs="+", choices=("png", "dicom"), default=["png", "dicom"])
    made.add_argument("--shard", type=int, default=32, help="as of the command (default: %(default)s)")
    made.add_argument("--ahead-mib", type=int, default=16, help="as of the command (default: %(default)s)")
    add_device(made)
    options = made.parse_args(arguments)
    bundle = read_bundle(SHIPPED_MODELS / MODEL)
    cores = len(os.sched_getaffinity(0))
    arrangements = [[open_engine(bundle, device=options.device)]]
    if options.device == "cpu":
        arrangements.append([open_engine(bundle, device="cpu", threads=1)] * cores)
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            files = contents(kind)
            source = Path(folder, kind)
            write_archive(source, files, options.images)
            start = time.perf_counter()
            items = [prepare(read_frames(content, "")[0], bundle.manifest.preprocessing) for content in files * 4]
            reading = (time.perf_counter() - start) / len(items)
            prepared = np.stack([item.pixels for item in items])[:BATCH, ..., np.newaxis]
            for engines in options.engines:
                before = best_raw(arrangements, prepared, options.seconds)
                found = backfilled(source, Path(folder, f"{kind}-{engines}"), engines, options)
                after = best_raw(arrangements, prepared, options.seconds)
                wall, cpu = ((before[what] + after[what]) / 2 for what in ("wall", "cpu"))
                rows.append(
                    {
                        "what": f"{kind}, {engines} engine{'s' if engines > 1 else ''}",
                        "ONNX Runtime": 1 / wall,
                        "steady": 1 / found["steady"],
                        "of ONNX Runtime": wall / found["steady"],
                        "with start-up": 1 / found["wall"],
                        "CPU ms": 1000 * found["cpu"],
                        "CPU ms of ONNX Runtime": 1000 * cpu,
                        "CPU ratio": cpu / found["cpu"],
                        "reading, ms": 1000 * reading,
                    }
                )
    where = machine(options.device, 0)
    show(f"backfill: {MODEL}, {options.images} images, images a second", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
