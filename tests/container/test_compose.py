"""deploy/compose.yaml as it runs: service, feed, archive and Prometheus, found by their names on its networks."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from pydicom.uid import Comprehensive3DSRStorage, ParametricMapStorage, SecondaryCaptureImageStorage
from serving import ROOT

from benchmarks.container import podman
from tests.container.harness import IMAGE
from tests.dicom_writers import saved
from tests.pacs import pictures, small

COMPOSE = ROOT / "deploy" / "compose.yaml"
STAND_INS = ROOT / "tests" / "container" / "stand_ins" / "compose.yaml"
SERVICES = ("radiolucent", "feed", "orthanc", "prometheus")  # Grafana is in no package
SERVICE, ARCHIVE, PROMETHEUS = (f"http://127.0.0.1:{port}" for port in (3000, 8042, 9090))
DIMSE = 4242  # the archive's port for C-STORE
RESULTS = (ParametricMapStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage)
PATIENCE_S = 180.0

pytestmark = pytest.mark.skipif(shutil.which("podman-compose") is None, reason="podman-compose is not installed")


class Stack:
    """The services of compose.yaml under a name of their own; ports are those of the file."""

    def __init__(self) -> None:
        self.name = f"radiolucent-test-{uuid.uuid4().hex[:8]}"

    def compose(self, *arguments: str) -> str:
        command = ["podman-compose", "-p", self.name, "-f", str(COMPOSE), "-f", str(STAND_INS), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build", *SERVICES)
        for url in (f"{SERVICE}/readyz", f"{ARCHIVE}/system", f"{PROMETHEUS}/-/ready"):
            until(lambda url=url: httpx.get(url).status_code == 200)

    def container(self, service: str) -> str:
        labels = (f"label=io.podman.compose.project={self.name}", f"label=com.docker.compose.service={service}")
        return podman("ps", "--all", "--quiet", *(f"--filter={label}" for label in labels))

    def remove(self) -> None:
        for service in SERVICES:
            log = subprocess.run(
                ["podman", "logs", self.container(service)], capture_output=True, text=True, check=False
            )
            sys.stderr.write(f"{service}\n{log.stdout}{log.stderr}\n")  # pytest shows it where a test fails
        self.compose("down", "--volumes")
        for network in yaml.safe_load(COMPOSE.read_text())["networks"]:  # podman-compose 1.0 keeps them
            subprocess.run(["podman", "network", "rm", f"{self.name}_{network}"], capture_output=True, check=False)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(networks: None) -> Iterator[Stack]:
    for port in (*(httpx.URL(url).port for url in (SERVICE, ARCHIVE, PROMETHEUS)), DIMSE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))  # compose.yaml's: they must be free
    running = Stack()
    try:
        running.up()
        yield running
    finally:
        running.remove()


def send(folder: Path, *all_series: list) -> None:
    """By storescu, as a modality would."""
    folder.mkdir()
    for number, ds in enumerate(ds for series in all_series for ds in series):
        (folder / f"{number}.dcm").write_bytes(saved(ds))
    subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(DIMSE), "+sd", str(folder)], check=True)


def jobs() -> Counter[str]:
    return Counter(httpx.get(f"{SERVICE}/v1/jobs").json()["counts"])


def stored() -> Counter[str]:
    """SOP classes of all instances that the archive has."""
    instances = httpx.get(f"{ARCHIVE}/instances").json()
    return Counter(httpx.get(f"{ARCHIVE}/instances/{each}/metadata/SopClassUid").text for each in instances)


@pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
def test_series_that_a_modality_sends_come_back_with_their_results_and_stay(stack, tmp_path):
    everything = pictures()
    send(tmp_path / "first", *everything)
    until(lambda: jobs()["done"] == len(everything))
    found = stored()
    assert found[ParametricMapStorage] == found[Comprehensive3DSRStorage] == len(everything)
    stack.compose("down")
    stack.up()
    assert jobs()["done"] == len(everything)
    assert stored() == found
    send(tmp_path / "second", small(0))
    until(lambda: jobs()["done"] > len(everything))
    assert jobs() == Counter(done=len(everything) + 1)  # the first ones were not asked about again
    assert sum(stored()[kind] for kind in RESULTS) == sum(found[kind] for kind in RESULTS) + 2 + len(small(0))


def test_prometheus_scrapes_the_service_and_takes_every_rule(stack):
    asked = {"query": 'up{job="radiolucent"}'}
    until(lambda: [row["value"][1] for row in query("query", asked)["result"]] == ["1"])
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    written = [
        rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]
    until(lambda: all(rule["health"] == "ok" for rule in rules()))
    assert sorted(rule["name"] for rule in rules()) == sorted(rule.get("alert") or rule["record"] for rule in written)


def query(what: str, asked: dict[str, str]) -> dict:
    return httpx.get(f"{PROMETHEUS}/api/v1/{what}", params=asked).json()["data"]


def rules() -> list[dict]:
    return [rule for group in query("rules", {})["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("service", ["radiolucent", "feed"])
def test_what_is_ours_runs_with_as_little_as_it_may(stack, service):
    (said,) = json.loads(podman("inspect", stack.container(service)))
    assert said["ImageName"].removeprefix("localhost/") == IMAGE.removeprefix("localhost/")
    assert said["Config"]["User"] == "10001:10001"
    assert said["HostConfig"]["ReadonlyRootfs"]
    assert said["EffectiveCaps"] in (None, [])
    assert "no-new-privileges" in str(said["HostConfig"]["SecurityOpt"])
