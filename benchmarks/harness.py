"""What every benchmark shares: arguments, a timed loop, the machine's description, a table and a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from training.files import write_atomically
from training.processor import processor

PACKAGES = ("onnxruntime-gpu", "torch", "captum", "grad-cam", "numpy", "opencv-python-headless", "bentoml")
Cell = str | float | int | None


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """An argument parser with `--json`."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return made


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, label: str, pause: float = 0.2
) -> dict[str, list[float]]:
    """Seconds of each repeat by name; every round runs each once, in turn, so that a noisy machine disturbs all alike.

    One round before the first is not counted. After every call there is a pause of `pause` seconds: the threads of
    ONNX Runtime and OpenMP go on spinning for a while after their work, on the cores that the next one needs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in tqdm(range(repeats + 1), desc=label, unit="round", leave=False):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            passed = time.perf_counter() - start
            if number:
                seconds[name].append(passed)
            time.sleep(pause)
    return seconds


def add_device(made: argparse.ArgumentParser) -> None:
    """Add `--device`, cpu where it is not given: figures of a GPU are asked for."""
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")


def add_cores(made: argparse.ArgumentParser) -> None:
    """Add `--cores`, for `benchmarks.served.parted`."""
    made.add_argument("--cores", type=int, metavar="N", help="the service's own, the others ask; default: all for both")


def machine(device: str, threads: int) -> dict[str, Cell | dict[str, str]]:
    """Where it was measured, and when; on `cuda` with the name of the first GPU."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "device": gpu_name() if device == "cuda" else device,
        "versions": versions,
    }


def gpu_name() -> str:
    """Name of the first GPU, by NVML."""
    import pynvml

    pynvml.nvmlInit()
    return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))


def gpu_memory() -> int:
    """Bytes in use on the first GPU, by NVML."""
    import pynvml

    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def show(title: str, rows: Sequence[Mapping[str, Cell]], where: Mapping[str, object]) -> None:
    """Print the rows as a table, and the machine below."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    console = Console()
    console.print(table)
    console.print(f"{where['processor']}, {where['cores']} cores, {where['device']}, {where['date']}", style="dim")


def save(options: argparse.Namespace, where: Mapping[str, object], **content: object) -> None:
    """Write the figures to `--json`, where it was given, with the machine and every option but places of files."""
    if options.json is not None:
        used = {
            name: value for name, value in vars(options).items() if name not in ("json", "data", "url", "other", "peer")
        }
        options_used = {name: str(value) if isinstance(value, Path) else value for name, value in used.items()}
        whole = {"options": options_used, "machine": where} | content
        write_atomically(options.json, (json.dumps(whole, indent=1) + "\n").encode())
