"""A folder of their own for the metrics of one server's worker processes.

BentoML lets all services of one user share a folder, and each that starts empties it under the others: their metrics
are gone or added to a stranger's. To be used before anything imports `service.observability`, whose metrics open files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_VARIABLE, _PREFIX = "PROMETHEUS_MULTIPROC_DIR", "radiolucent-metrics-"


def metrics_folder(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that names the folder, made where it is missing; empty where BentoML names none (not a worker).

    It lies beside BentoML's and is named by this process's parent, the supervisor of all workers, and by when that
    began. Folders of supervisors that are gone are deleted.
    """
    if not environment.get(_VARIABLE):
        return {}
    beside = Path(environment[_VARIABLE])
    own = beside.with_name(_PREFIX + _named(os.getppid()))
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in own.parent.glob(f"{_PREFIX}*"):
        pid = other.name.removeprefix(_PREFIX).partition("-")[0]
        if other != own and (not pid.isdecimal() or _named(int(pid)) != other.name.removeprefix(_PREFIX)):
            shutil.rmtree(other, ignore_errors=True)  # another worker may be at it, too
    return {_VARIABLE: str(own)}


def _named(pid: int) -> str:
    """A process's number and, on Linux, the tick of the system's life that it began in, whatever the clock does."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}-{after_name[19]}"
