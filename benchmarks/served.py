"""A running service: started here, or one that runs already."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import httpx

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 180.0  # seconds


@dataclass(frozen=True, slots=True)
class Served:
    """A service: `url` without a trailing slash; `pid` of the process where it was started here, else 0."""

    url: str
    pid: int
    seconds_to_ready: float


@contextmanager
def held_to(cores: set[int]) -> Generator[None, None, None]:
    """This process and those that it starts run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def parted(cores: int | None) -> tuple[set[int], set[int]]:
    """The cores of a service, so many of all, and those of who asks it: the others, or with None all for both.

    Raises:
        SystemExit: none would be left.
    """
    every = sorted(os.sched_getaffinity(0))
    if cores is None:
        return set(every), set(every)
    if not 0 < cores < len(every):
        raise SystemExit(f"--cores: from 1 to {len(every) - 1} of the {len(every)} cores here, for some are to ask")
    return set(every[:cores]), set(every[cores:])


@contextmanager
def started(
    environment: dict[str, str] | None = None, cores: set[int] | None = None, folder: Path = ROOT
) -> Generator[Served, None, None]:
    """Start the service on a free port of the loopback interface; it is stopped at the end.

    Args:
        environment: its settings.
        cores: that it may use; None: those of this process.
        folder: of the checkout that is started.

    Raises:
        RuntimeError: it ended or was not ready in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1"]
    settings = os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | (environment or {})
    start = time.perf_counter()
    quiet = subprocess.DEVNULL
    with held_to(cores or os.sched_getaffinity(0)):
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=settings, stdout=quiet, stderr=quiet
        )
    try:
        while not ready(url):
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with status {process.returncode} before it was ready")
            if time.perf_counter() - start > START_LIMIT:
                raise RuntimeError(f"the service was not ready after {START_LIMIT:.0f} s")
            time.sleep(0.05)
        yield Served(url, process.pid, time.perf_counter() - start)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def service(url: str | None) -> Generator[Served, None, None]:
    """The service at `url`, or one that is started for the occasion."""
    if url is not None:
        yield Served(url.rstrip("/"), 0, 0.0)
    else:
        with started() as own:
            yield own


def post(
    client: httpx.Client, path: str, fields: dict[str, str], files: Sequence[tuple[str, bytes]]
) -> list[dict[str, Any]]:
    """The results of one request.

    Raises:
        httpx.HTTPStatusError: the service answered with a problem.
        RuntimeError: an image failed.
    """
    answer = client.post(path, data=fields, files=[("images", (name, content)) for name, content in files])
    answer.raise_for_status()
    results: list[dict[str, Any]] = answer.json()["results"]
    for result in results:
        if result["status"] != "ok":
            raise RuntimeError(f"{result['name']}: {result['error']['detail']}")
    return results


def ready(url: str) -> bool:
    """Whether a service is there and serves a model."""
    try:
        with urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310  # always http on the loopback interface
            return bool(json.load(answer)["ready"])
    except (URLError, ConnectionError, TimeoutError):
        return False
