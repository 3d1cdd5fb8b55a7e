"""A container of the image, run as it is meant to be: read-only, without capabilities; and no shell can be found."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.container import HARDENED, podman
from tests.processes import free_port

IMAGE = os.environ.get("RADIOLUCENT_IMAGE", "radiolucent:0.1.0")
OPTIONS = shlex.split(os.environ.get("RADIOLUCENT_RUN_OPTIONS", ""))  # of `podman run`
SHELLS = ("/usr/bin/dash", "/usr/bin/bash")  # /bin is a link to /usr/bin


@dataclass(frozen=True)
class Container:
    name: str
    address: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=300)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the container, as the container's user."""
        return subprocess.run(
            ["podman", "exec", self.name, *command], capture_output=True, text=True, timeout=120, check=False
        )

    def stop(self) -> int:
        """SIGTERM; returns the exit status. podman would kill it after a minute, and then the status is 137."""
        podman("stop", "--time=60", self.name)
        return int(podman("inspect", "--format={{.State.ExitCode}}", self.name))


@contextmanager
def started(*options: str) -> Iterator[Container]:
    """A container that is ready; gone at the end, its logs printed."""
    port = free_port()
    masks = [f"--volume=/dev/null:{shell}:ro" for shell in SHELLS]
    name = podman(
        *("run", "--detach", "--network=host", *HARDENED, *masks, *OPTIONS, *options, IMAGE),
        *("--host", "127.0.0.1", "--port", str(port)),
    )
    try:
        container = Container(name, f"http://127.0.0.1:{port}")
        _wait(container)
        yield container
    finally:
        sys.stderr.write(podman("logs", name))  # pytest shows it where a test fails
        podman("rm", "--force", "--volumes", name)


def _wait(container: Container) -> None:
    with container.client() as client:
        for _ in range(240):
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert podman("inspect", "--format={{.State.Running}}", container.name) == "true"
            time.sleep(0.25)
    raise AssertionError("the container was not ready after a minute")
