"""The memory of a tree of processes."""

from __future__ import annotations

from pathlib import Path

import psutil

KIB_PER_MIB = 1024


def processes_of(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that it has started."""
    return [root, *root.children(recursive=True)]


def anonymous_mib(process: psutil.Process) -> float:
    """What a process holds that no file holds, in MiB; what it shares with others counts by its part.

    The proportional size of mapped files is left out: it changes with what other processes on the machine map the
    same libraries.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process.pid) from None
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / KIB_PER_MIB
