"""A folder of one server's worker processes, for as long as their supervisor lives: metrics, shared graphs, rates.

BentoML lets all services of one user share a folder for metrics, and each that starts empties it under the others:
their metrics are gone or added to a stranger's. To be used before anything imports `service.observability`, whose
metrics open files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "radiolucent-server-"


def server_folder(environment: Mapping[str, str]) -> Path | None:
    """Its place, made where it is missing; None where BentoML names none for metrics: this is no worker.

    It lies beside BentoML's and is named by this process's parent, the supervisor of all workers, and by when that
    began. Folders of supervisors that are gone are deleted.
    """
    if not environment.get(METRICS_VARIABLE):
        return None
    beside = Path(environment[METRICS_VARIABLE])
    own = beside.with_name(_PREFIX + _named(os.getppid()))
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in own.parent.glob(f"{_PREFIX}*"):
        pid = other.name.removeprefix(_PREFIX).partition("-")[0]
        if other != own and (not pid.isdecimal() or _named(int(pid)) != other.name.removeprefix(_PREFIX)):
            shutil.rmtree(other, ignore_errors=True)  # another worker may be at it, too
    return own


def metrics_folder(folder: Path) -> dict[str, str]:
    """The variable that tells prometheus-client where the workers' metrics are, in the server's folder."""
    own = folder / "metrics"
    own.mkdir(mode=0o700, exist_ok=True)
    return {METRICS_VARIABLE: str(own)}


@contextmanager
def turn(folder: Path, name: str) -> Generator[None]:
    """Wait until no other worker is in this of the folder's turns; a worker that dies leaves it."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _named(pid: int) -> str:
    """A process's number and, on Linux, the tick of the system's life that it began in, whatever the clock does."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}-{after_name[19]}"
