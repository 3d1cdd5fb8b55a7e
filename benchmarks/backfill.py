"""Images a second of `python -m service.backfill` against raw ONNX Runtime on the same cores, in one run.

    python -m benchmarks.backfill [--json FILE]

`ONNX Runtime` is the bundle's graph in this process, in batches of 32, on images that are prepared already, before and
after every archive. The archives are drawn: PNG of 512 x 512 and DICOM (CT-like, 16 bits, uncompressed) of the same.
`steady` is a long run's rate: it counts from the first shard done until as many images are left as may be read ahead,
so that as many were read meanwhile as were answered; `with start-up` is the whole command on this short archive, with
Ray, the workers and the model in it. The service's reading is repeated in one thread without Ray: fetch, decode, crop.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Cell, machine, parser, save, show
from loadtests.payloads import uploads
from service.bundle import read_bundle
from service.engine import open_engine
from service.images.reading import read_frames
from service.preprocessing import prepare
from service.settings import SHIPPED_MODELS
from service.types import Grey8
from tests.dicom_writers import classic_mr, saved

MODEL, MODALITY, BATCH, SHARD = "brain-mri-resnet50", "MR", 32, 32
AHEAD_MIB, AHEAD = 16, 352  # of the run, and the images of 224 x 224 that it holds


def contents(kind: str) -> list[bytes]:
    """Eight different files."""
    files = [file.content for file in uploads()[MODALITY]]
    if kind == "png":
        return files
    pixels = [read_frames(content, "")[0].pixels.astype(np.uint16) * 16 for content in files]
    return [saved(ds) for ds in classic_mr(pixels, "backfill")]


def write_archive(folder: Path, files: Sequence[bytes], count: int) -> None:
    """So many files in folders of a hundred."""
    for number in range(count):
        below = folder / f"{number // 100:04d}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number:06d}").write_bytes(files[number % len(files)])


def raw(run: Callable[[Grey8], object], images: Grey8, seconds: float) -> float:
    """Seconds an image of the forward pass alone."""
    run(images)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run(images)
        done += len(images)
    return (time.perf_counter() - start) / done


def backfilled(source: Path, out: Path, engines: int) -> dict[str, float]:
    """One whole run as a process of its own.

    Raises:
        RuntimeError: it failed, or an image did.
    """
    import pyarrow.parquet as pq

    command = [sys.executable, "-m", "service.backfill", str(source), str(out), "--model", MODEL]
    sizes = ["--batch", str(BATCH), "--shard", str(SHARD), "--engines", str(engines), "--ahead-mib", str(AHEAD_MIB)]
    start = time.perf_counter()
    subprocess.run([*command, *sizes], check=True, capture_output=True)
    wall = time.perf_counter() - start
    done = sorted((path.stat().st_mtime, path) for path in (out / "results").glob("*.parquet"))
    rows = [pq.read_table(path, columns=["problem"]) for _, path in done]
    if any(table.column("problem").null_count != table.num_rows for table in rows):
        raise RuntimeError("an image failed")
    images = sum(table.num_rows for table in rows)
    window = done[: (images - AHEAD) // SHARD]
    steady = (window[-1][0] - window[0][0]) / (SHARD * (len(window) - 1))
    return {"images": images, "wall": wall, "steady": steady}


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("backfill", __doc__)
    made.add_argument("--images", type=int, default=1280, help="of each archive (default: %(default)s)")
    made.add_argument("--seconds", type=float, default=8.0, help="of each raw measurement (default: %(default)s)")
    made.add_argument("--engines", type=int, nargs="+", default=[1, 2], help="default: %(default)s")
    made.add_argument("--kinds", nargs="+", choices=("png", "dicom"), default=["png", "dicom"])
    options = made.parse_args(arguments)
    bundle = read_bundle(SHIPPED_MODELS / MODEL)
    engine = open_engine(bundle, device="cpu")
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            files = contents(kind)
            source = Path(folder, kind)
            write_archive(source, files, options.images)
            start = time.perf_counter()
            items = [prepare(read_frames(content, "")[0], bundle.manifest.preprocessing) for content in files * 4]
            reading = (time.perf_counter() - start) / len(items)
            images = np.stack([item.pixels for item in items])[:BATCH, ..., np.newaxis]
            for engines in options.engines:
                before = raw(engine.run, images, options.seconds)
                found = backfilled(source, Path(folder, f"{kind}-{engines}"), engines)
                alone = (before + raw(engine.run, images, options.seconds)) / 2
                rows.append(
                    {
                        "what": f"{kind}, {engines} engine{'s' if engines > 1 else ''}",
                        "ONNX Runtime": 1 / alone,
                        "steady": 1 / found["steady"],
                        "of ONNX Runtime": alone / found["steady"],
                        "with start-up": found["images"] / found["wall"],
                        "reading, ms": 1000 * reading,
                    }
                )
    where = machine(engine.provider, 0)
    show(f"backfill: {MODEL}, {options.images} images, images a second", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
