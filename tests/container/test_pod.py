"""The pod of deploy/kubernetes/base as it runs: podman plays what Kustomize makes of it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from serving import ROOT

from benchmarks.container import podman
from tests.container.harness import IMAGE

BASE = ROOT / "deploy" / "kubernetes" / "base"
ADDRESS = "http://127.0.0.1:3000"  # podman opens the container's port on the host
HEAD = ("images", ("head.png", (ROOT / "docs/images/mni152-slice.png").read_bytes(), "image/png"))

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@dataclass(frozen=True)
class Pod:
    container: str
    key: str

    def inspected(self) -> dict:
        return json.loads(podman("inspect", self.container))[0]

    def stop(self) -> None:
        podman("stop", "--time=65", self.container)


def deployment(name: str) -> dict:
    """As Kustomize makes it, with the image that is there, a name of its own, and what podman 4.3 does not guess."""
    made = subprocess.run(["kubectl", "kustomize", str(BASE)], check=True, capture_output=True, text=True).stdout
    (found,) = [each for each in yaml.safe_load_all(made) if each["kind"] == "Deployment"]
    found["metadata"]["name"] = name
    pod = found["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = f"localhost/{IMAGE.removeprefix('localhost/')}"
    (keys,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    keys |= {"secretName": name, "optional": False}
    return found


@pytest.fixture(scope="module")
def pod(networks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("0.0.0.0", httpx.URL(ADDRESS).port))  # noqa: S104 - it must be free, everywhere
    folder = tmp_path_factory.mktemp("pod")
    name = f"radiolucent-test-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "service.access", "create", str(folder / "keys"), "--scopes", "explain"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    keys = (folder / "keys").read_text()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"keys": keys}}
    manifest = folder / "pod.yaml"
    manifest.write_text(yaml.safe_dump_all([secret, deployment(name)]))
    try:
        podman("volume", "create", name)  # podman 4.3 takes it for the Secret's, whose text it would not decode
        Path(podman("volume", "inspect", "--format={{.Mountpoint}}", name), "keys").write_text(keys)
        podman("kube", "play", str(manifest))
        container = f"{name}-pod-0-radiolucent"
        for _ in range(240):
            if is_ready():
                break
            time.sleep(0.5)
        yield Pod(container, re.findall(r"rl_\S+", said)[0])
    finally:
        log = subprocess.run(
            ["podman", "logs", f"{name}-pod-0-radiolucent"], capture_output=True, text=True, check=False
        )
        sys.stderr.write(log.stdout + log.stderr)  # pytest shows it where a test fails
        subprocess.run(["podman", "kube", "down", str(manifest)], capture_output=True, check=False)
        for kind in ("volume", "secret"):
            subprocess.run(["podman", kind, "rm", name], capture_output=True, check=False)


def is_ready() -> bool:
    try:
        return httpx.get(f"{ADDRESS}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_its_probes_are_open_and_everything_else_wants_the_secret_s_key(pod):
    assert httpx.get(f"{ADDRESS}/livez").status_code == httpx.get(f"{ADDRESS}/readyz").status_code == 200
    asked = {"data": {"model": "brain-mri-resnet50"}, "files": [HEAD], "timeout": 60}
    assert httpx.post(f"{ADDRESS}/v1/explain", **asked).status_code == 401
    answer = httpx.post(f"{ADDRESS}/v1/explain", **asked, headers={"Authorization": f"Bearer {pod.key}"})
    assert answer.json()["results"][0]["status"] == "ok"


def test_it_has_what_the_manifest_gives_and_no_more(pod):
    said = pod.inspected()
    assert said["Config"]["User"] == "10001:10001"
    assert said["EffectiveCaps"] in (None, [])
    host = said["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == 4 * 2**30
    assert "RADIOLUCENT_THREADS=2" in said["Config"]["Env"]  # its own limit, from the downward API
    mounted = {mount["Destination"]: mount["RW"] for mount in said["Mounts"]}
    assert mounted == {"/state": True, "/tmp": True, "/etc/radiolucent": False}  # noqa: S108


def test_it_ends_well_within_its_grace_period(pod):
    pod.stop()
    assert pod.inspected()["State"]["ExitCode"] == 0
