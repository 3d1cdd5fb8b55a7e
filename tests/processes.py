"""What processes under test need: a port each, and an end."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import psutil

SLIM = {"PYTHONPATH": str(Path(__file__).parent / "slim")}  # environment of processes that import jsonschema

_given: set[int] = set()
# Tests run in several processes, each of which has ports of its own: what is free now may be asked for in all of them.
# Linux gives even ones only.
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on and that was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port // 2 % _PROCESSES == _PROCESS and port not in _given:
            _given.add(port)
            return port


def kill_tree(pid: int, sign: signal.Signals = signal.SIGKILL, patience_s: float = 60.0) -> None:
    """Send a signal to a process and all that it has started, and wait for their end; SIGKILL where they do not.

    BentoML's worker is in a session of its own, which a signal to a group would miss.
    """
    root = psutil.Process(pid)
    everything = [root, *root.children(recursive=True)]
    for process in everything if sign == signal.SIGKILL else [root]:
        process.send_signal(sign)
    _, alive = psutil.wait_procs(everything, patience_s)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, patience_s)
