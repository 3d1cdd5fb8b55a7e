"""What the container image takes: its size, seconds until it is ready, memory, and seconds that it takes to stop.

Run as it is meant to be: read-only root file system, no capabilities, nobody special; on loopback through the host's
network. Size is that of the files in the image, unpacked, in units of 10^6 bytes; memory as in `service_footprint`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.served import START_LIMIT, Served, ready
from benchmarks.service_footprint import memory, work

HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777")


def podman(*arguments: str) -> str:
    """What podman prints.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(["podman", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def unpacked(image: str) -> float:
    """Megabytes of the files in the image."""
    where = podman("image", "mount", image)
    try:
        counted = subprocess.run(["du", "-sb", where], check=True, stdout=subprocess.PIPE, text=True).stdout
    finally:
        podman("image", "unmount", image)
    return int(counted.split()[0]) / 1e6


def once(image: str, extra: Sequence[str], requests: int) -> dict[str, float]:
    """Start a container, let it work, stop it by SIGTERM.

    Raises:
        RuntimeError: it was not ready in time, or did not end well.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    begin = time.perf_counter()
    name = podman(
        *("run", "--detach", "--network=host", *HARDENED, *extra, image),
        *("--host", "127.0.0.1", "--port", str(port)),
    )
    try:
        while not ready(url):
            if time.perf_counter() - begin > START_LIMIT:
                raise RuntimeError(f"the container was not ready after {START_LIMIT:.0f} s")
            time.sleep(0.05)
        started = time.perf_counter() - begin
        pid = int(podman("inspect", "--format={{.State.Pid}}", name))
        idle, _ = memory(pid)
        work(Served(url, pid, started), requests)
        busy, _ = memory(pid)
        begin = time.perf_counter()
        podman("stop", "--time=60", name)
        stopped = time.perf_counter() - begin
        status = int(podman("inspect", "--format={{.State.ExitCode}}", name))
        if status:
            raise RuntimeError(f"the container ended with status {status} after SIGTERM")
    finally:
        podman("rm", "--force", "--volumes", name)
    return {
        "seconds until ready": started,
        "proportional set size, ready, MiB": idle,
        "proportional set size, after work, MiB": busy,
        "seconds to stop": stopped,
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("container", __doc__)
    made.add_argument("image", help="as podman knows it")
    made.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    made.add_argument("--requests", type=int, default=2, help="of 8 images, for each model; default: %(default)s")
    made.add_argument("--podman", nargs="*", default=[], help="further options of `podman run`, without the dashes")
    options = made.parse_args(arguments)
    extra = [f"--{each}" for each in options.podman]
    runs = [once(options.image, extra, options.requests) for _ in range(options.starts)]
    rows: list[dict[str, Cell]] = [
        {"what": name, "median": median(run[name] for run in runs), "largest": max(run[name] for run in runs)}
        for name in runs[0]
    ]
    size = unpacked(options.image)
    rows.insert(0, {"what": "files of the image, MB", "median": size, "largest": size})
    where = machine("cpu", 0)
    show(f"container: {options.image}", rows, where)
    save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
