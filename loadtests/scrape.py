"""What the server says and costs while it is loaded: its own metrics, its processor time and its memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from threading import Event, Thread
from types import TracebackType
from urllib.parse import urlsplit

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

STAGES, BATCHES = "radiolucent_stage_seconds", "radiolucent_batch_images"
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Reading:
    """The server at one moment; everything but memory counts up from its start.

    Attributes:
        at: seconds since the epoch.
        stages: seconds spent in each stage of a request.
        batches: forward passes, and images in them.
        cpu: seconds of processor time of its processes; None where they are on another machine.
        rss: bytes of memory of its processes; None likewise.
    """

    at: float
    stages: Mapping[str, float] = field(default_factory=dict[str, float])
    batches: tuple[float, float] = (0.0, 0.0)
    cpu: float | None = None
    rss: int | None = None


def parse(text: str) -> tuple[dict[str, float], tuple[float, float]]:
    """Seconds by stage, and the number of forward passes and of images in them, from a Prometheus exposition.

    Labels other than `stage` are summed over, whatever there are.

    Raises:
        ValueError: it is no exposition.
    """
    stages: dict[str, float] = {}
    passes = images = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{STAGES}_sum":
                stage = sample.labels.get("stage", "all")
                stages[stage] = stages.get(stage, 0.0) + sample.value
            elif sample.name == f"{BATCHES}_count":
                passes += sample.value
            elif sample.name == f"{BATCHES}_sum":
                images += sample.value
    return stages, (passes, images)


def listening_on(url: str) -> int:
    """Process id of the server at a URL of this machine; 0 where it is on another, or belongs to someone else."""
    at = urlsplit(url)
    port = at.port or (443 if at.scheme == "https" else 80)
    if at.hostname not in LOCAL:
        return 0
    owners = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
    }
    # BentoML's workers listen on what their parent has opened: the root of them is meant.
    known = [psutil.Process(pid) for pid in owners if pid]
    roots = [process.pid for process in known if process.ppid() not in owners]
    return min(roots, default=0)


def cost(pid: int) -> tuple[float | None, int | None]:
    """Processor seconds and bytes of memory of a process and its children; None of process 0 or one that has ended."""
    if not pid:
        return None, None
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None, None
    cpu, rss = 0.0, 0
    for process in family:
        try:
            with process.oneshot():
                cpu += sum(process.cpu_times()[:2])
                rss += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # a child that ended meanwhile
    return cpu, rss


class Scraper(AbstractContextManager["Scraper"]):
    """Takes readings in a thread until it is left.

    Args:
        metrics: URL of the metrics.
        pid: of the server; 0 where it is on another machine.
        headers: to send with every request.
        every_s: seconds between two readings.

    Attributes:
        readings: so far.
        missed: times that the metrics could not be read.
    """

    def __init__(self, metrics: str, pid: int, headers: Mapping[str, str] | None = None, every_s: float = 1.0) -> None:
        self.readings: list[Reading] = []
        self.missed = 0
        self._metrics, self._pid, self._headers, self._every_s = metrics, pid, dict(headers or {}), every_s
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.is_set():
            self.readings.append(self._read())
            self._ended.wait(self._every_s)

    def _read(self) -> Reading:
        at, (cpu, rss) = time.time(), cost(self._pid)
        try:
            answer = requests.get(self._metrics, headers=self._headers, timeout=10)
            answer.raise_for_status()
            stages, batches = parse(answer.text)
            if self.missed == len(self.readings):  # all so far: what it had counted before is not of this load
                self.readings[:] = [replace(each, stages=stages, batches=batches) for each in self.readings]
        except (requests.RequestException, ValueError):
            self.missed += 1
            last = self.readings[-1] if self.readings else Reading(at)
            stages, batches = last.stages, last.batches
        return Reading(at, stages, batches, cpu, rss)


def series_of(readings: Sequence[Reading]) -> dict[str, object]:
    """What the readings say of the time between two of them, as columns for JSON.

    `at` is the end of each interval; `stages` are seconds of a stage a second (how many requests were in it on
    average); `batch` is the mean number of images of a forward pass, None where there was none; `cpu` is in cores;
    `rss_mib` in MiB.
    """
    pairs = list(pairwise(readings))
    names = sorted({name for reading in readings for name in reading.stages})
    return {
        "at": [round(later.at, 3) for _, later in pairs],
        "stages": {
            name: [_rate(a.stages.get(name), b.stages.get(name), b.at - a.at) for a, b in pairs] for name in names
        },
        "batch": [_mean(a.batches, b.batches) for a, b in pairs],
        "cpu": [_rate(a.cpu, b.cpu, b.at - a.at) for a, b in pairs],
        "rss_mib": [None if b.rss is None else round(b.rss / 2**20, 1) for _, b in pairs],
    }


def spent(readings: Sequence[Reading]) -> dict[str, float]:
    """Seconds of every stage over all readings."""
    if not readings:
        return {}
    first, last = readings[0], readings[-1]
    return {name: value - first.stages.get(name, 0.0) for name, value in last.stages.items()}


def _rate(before: float | None, after: float | None, seconds: float) -> float | None:
    if after is None or seconds <= 0:
        return None
    return round(max(after - (before or 0.0), 0.0) / seconds, 4)


def _mean(before: Iterable[float], after: Iterable[float]) -> float | None:
    passes, images = (later - earlier for earlier, later in zip(before, after, strict=True))
    return round(images / passes, 2) if passes > 0 else None
