"""What a machine must be able to do for whole compositions of containers."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from benchmarks.container import podman
from tests.container.harness import IMAGE


@pytest.fixture(scope="session")
def networks() -> None:
    """Skip where containers can have no network of their own, on which they find each other by name."""
    if podman("info", "--format={{.Host.NetworkBackend}}") != "netavark":
        pytest.skip("podman's networks know no names without netavark and aardvark-dns")
    name = f"radiolucent-test-{uuid.uuid4().hex[:8]}"
    podman("network", "create", name)
    try:
        command = ["podman", "run", "--rm", f"--network={name}", "--entrypoint=python", IMAGE, "-c", ""]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if tried.returncode:
            pytest.skip(f"containers can have no network of their own here: {tried.stderr.strip()[-300:]}")
    finally:
        podman("network", "rm", name)
