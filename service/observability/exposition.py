"""The metrics of all worker processes, as Prometheus scrapes them.

BentoML's own `/metrics` is off: it labels its series with the path that the caller sent, whatever that holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.observability.gpu import gpu_collector

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Workers(Collector):
    """What the workers have written into a folder, but for files that a worker has only just opened: they are empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        begun = [str(path) for path in self._folder.glob("*.db") if _size(path)]
        return MultiProcessCollector.merge(begun, accumulate=True)


def exposition() -> bytes:
    """Prometheus' text format, UTF-8. Gauges of workers that have died are forgotten first."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest(REGISTRY)
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    registry.register(_Workers(Path(folder)))
    gpus = gpu_collector()
    if gpus is not None:
        registry.register(gpus)
    return generate_latest(registry)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a dead worker's, that another scrape has forgotten meanwhile
        return 0


def _forget_the_dead(folder: Path) -> None:
    for path in folder.glob("gauge_live*_*.db"):
        if not _lives(int(path.stem.rpartition("_")[2])):
            path.unlink(missing_ok=True)  # another worker may be scraped at the same time


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
