"""Ending processes: BentoML's worker is in a session of its own, which a signal to a group would miss."""

from __future__ import annotations

import signal

import psutil


def kill_tree(pid: int, sign: signal.Signals = signal.SIGKILL, patience_s: float = 60.0) -> None:
    """Send a signal to a process and all that it has started, and wait for their end; SIGKILL where they do not."""
    root = psutil.Process(pid)
    everything = [root, *root.children(recursive=True)]
    for process in everything if sign == signal.SIGKILL else [root]:
        process.send_signal(sign)
    _, alive = psutil.wait_procs(everything, patience_s)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, patience_s)
