"""The built image, by what it is and by what it answers: `make container`."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from serving import ROOT

from benchmarks.container import podman, unpacked
from loadtests.payloads import uploads
from service.dicom_results.options import KINDS
from service.explainers import METHODS
from tests.container.harness import IMAGE, OPTIONS, SHELLS, started

LARGEST_MB = 900
HEAD = ("images", ("head.png", (ROOT / "docs/images/mni152-slice.png").read_bytes(), "image/png"))
BRAIN = "brain-mri-resnet50"


@pytest.fixture(scope="module")
def container():
    with started() as container:
        yield container


@pytest.fixture(scope="module")
def client(container):
    with container.client() as client:
        yield client


def inspected():
    return json.loads(podman("image", "inspect", IMAGE))[0]


def test_the_image_is_small():
    assert unpacked(IMAGE) <= LARGEST_MB


def test_the_image_runs_as_nobody_special_and_says_what_it_is():
    said = inspected()["Config"]
    assert said["User"] == "10001:10001"
    assert said["StopSignal"] in ("SIGTERM", "15")
    assert "not a medical device" in said["Labels"]["org.opencontainers.image.description"]
    assert not [name for name in said["Env"] if "INDEX" in name or "TOKEN" in name]


def test_a_key_of_the_guide_s_volume_holds_until_it_is_revoked():
    """By docs/deploy.md: made in the image, kept in a volume that the service cannot write."""
    volume = f"radiolucent-keys-{uuid.uuid4().hex}"

    def access(*arguments: str) -> str:
        options = (f"--volume={volume}:/keys", "--entrypoint=python", *OPTIONS)
        return podman("run", "--rm", *options, IMAGE, "-m", "service.access", *arguments)

    try:
        key = re.findall(r"rl_\S+", access("create", "/keys/keys.json", "--scopes", "explain"))[0]
        asking = {"Authorization": f"Bearer {key}"}
        options = (f"--volume={volume}:/keys:ro", "--env=RADIOLUCENT_KEYS=/keys/keys.json")
        with started(*options) as guarded, guarded.client() as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers=asking).status_code == 200
            record = re.findall(r"^\S+", access("list", "/keys/keys.json"), re.MULTILINE)[-1]
            access("revoke", "/keys/keys.json", record)
            until = time.monotonic() + 60
            while client.get("/v1/models", headers=asking).status_code != 401:
                assert time.monotonic() < until
                time.sleep(0.25)
    finally:
        podman("volume", "rm", "--force", volume)


def test_nothing_can_be_written_and_no_shell_be_started(container):
    assert container.run("python", "-c", "open('/app/x', 'w')").returncode == 1
    for shell in SHELLS:
        assert container.run(shell, "-c", "true").returncode != 0
    assert container.run("python", "-c", "open('/state/x', 'w'); open('/tmp/x', 'w')").returncode == 0


def test_the_health_check_finds_it_well(container):
    kind, *command = inspected()["Healthcheck"]["Test"]
    assert kind == "CMD"  # no shell
    here = [part.replace("http://127.0.0.1:3000/", f"{container.address}/") for part in command]
    assert here != command
    assert container.run(*here).returncode == 0
    elsewhere = [part.replace("http://127.0.0.1:3000/", "http://127.0.0.1:1/") for part in command]
    assert container.run(*elsewhere).returncode != 0


def test_the_bill_of_materials_lists_what_is_installed(container):
    bill = container.run("python", "-c", "print(open('/app/sbom.cdx.json').read())").stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = json.loads(bill)["components"]
    libraries = [each for each in components if each["type"] == "library"]
    listed = {each["name"]: each["version"] for each in libraries if each["purl"].startswith("pkg:pypi/")}
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    said = json.loads(container.run("python", "-c", code).stdout)
    found = {canonicalize_name(name): version for name, version in said.items()}
    assert found == listed
    assert "torch" not in found
    status = container.run("python", "-c", "print(open('/var/lib/dpkg/status').read())").stdout
    system = {each["name"]: each["version"] for each in libraries if each["purl"].startswith("pkg:deb/")}
    assert "libc6" in system
    assert system == dict(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", status, re.MULTILINE))
    assert len(listed) + len(system) == len(libraries)


def test_every_method_explains(client):
    (model,) = (each for each in client.get("/v1/models").json()["models"] if each["id"] == BRAIN)
    methods = [each["method"] for each in model["explanations"]]
    assert len(methods) > 10
    for method in methods:
        asked = {"model": BRAIN, "method": method, "overlay": "true", "deadline_ms": "600000"}
        if METHODS[method].budget:
            asked["budget"] = "80" if method == "kernelshap" else "32"
        answer = client.post("/v1/explain", data=asked, files=[HEAD])
        assert answer.status_code == 200, (method, answer.text)
        assert answer.json()["results"][0]["status"] == "ok", method


def test_outlines_reports_frames_and_the_page(client):
    outlined = client.post("/v1/segment", data={"model": "brain-mri-unet"}, files=[HEAD])
    assert outlined.json()["results"][0]["status"] == "ok"
    report = client.post("/v1/report", data={"model": BRAIN}, files=[("image", HEAD[1])])
    assert report.content.startswith(b"%PDF")
    assert client.post("/v1/frames", files=[("image", HEAD[1])]).status_code == 200
    assert "not a medical device" in client.get("/").text


def test_a_study_becomes_dicom_objects(client):
    series = client.get("/v1/examples/series.zip").content
    asked = {"model": BRAIN, "results": list(KINDS)}
    headers = {"Content-Type": "application/zip", "Accept": 'multipart/related; type="application/dicom"'}
    answer = client.post("/v1/studies", params=asked, content=series, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content.count(b"DICM") >= len(KINDS)


def ask(address: str, sent: list[float], answered: list[tuple[float, int]], failed: list[float], stop: threading.Event):
    """One image after another, each over a connection of its own; times are when the request was begun."""
    image = uploads()["MR"][0]
    while not stop.is_set():
        begin = time.monotonic()
        sent.append(begin)
        try:
            answer = httpx.post(
                f"{address}/v1/explain",
                data={"model": BRAIN},
                files=[("images", (image.name, image.content))],
                timeout=60,
            )
            assert answer.status_code != 200 or answer.json()["results"][0]["status"] == "ok"
            answered.append((begin, answer.status_code))
        except httpx.TransportError:
            failed.append(begin)
            time.sleep(0.05)


def test_sigterm_under_load_answers_what_was_accepted_and_keeps_the_jobs():
    uploads()  # drawn once, before anybody is waiting
    volume = podman("volume", "create")
    try:
        with started(f"--volume={volume}:/state") as container:
            with container.client() as client:
                asked = {"model": BRAIN, "method": "rise", "budget": "500"}
                accepted = client.post("/v1/explanations", data=asked, files=[HEAD])
                assert accepted.status_code == 202, accepted.text
                job = accepted.json()["id"]
            sent, answered, failed, stop = [], [], [], threading.Event()
            clients = [
                threading.Thread(target=ask, args=(container.address, sent, answered, failed, stop)) for _ in range(8)
            ]
            for each in clients:
                each.start()
            time.sleep(4)
            told = time.monotonic()
            status = container.stop()
            stop.set()
            for each in clients:
                each.join()
        assert status == 0
        before = [begin for begin in sent if begin < told - 0.2]  # not those on their way to it
        assert len(before) > 8
        assert not [begin for begin in failed if begin < told - 0.2]
        assert {code for begin, code in answered if begin < told - 0.2} == {200}
        assert {code for _, code in answered} <= {200, 503}
        with started(f"--volume={volume}:/state") as container, container.client() as client:
            for _ in range(600):
                found = client.get(f"/v1/explanations/{job}").json()
                if found["status"] in ("done", "failed"):
                    break
                time.sleep(0.2)
            assert found["status"] == "done"
    finally:
        podman("volume", "rm", "--force", volume)


# In the container: its worker processes, by what they were started with, and how many of the shared weights each maps.
LOOK = """
import json, pathlib
found = {}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"_bentoml_impl.worker.service" in (process / "cmdline").read_bytes().split(b"\\0"):
        maps = (process / "maps").read_text().splitlines()
        found[process.name] = len({line.split()[-1] for line in maps if line.endswith("/model.weights")})
print(json.dumps(found))
"""


def test_two_workers_share_the_weights_and_one_that_is_killed_is_replaced():
    with started("--env=RADIOLUCENT_WORKERS=2") as container:

        def both(gone: str = "") -> dict[str, int]:
            found: dict[str, int] = {}
            for _ in range(120):
                looked = container.run("python", "-c", LOOK)
                found = json.loads(looked.stdout) if looked.returncode == 0 else {}  # one ended while it was looked at
                if list(found.values()) == [3, 3] and gone not in found:  # two classifiers, one segmenter
                    return found
                time.sleep(0.5)
            raise AssertionError(f"shared weights by process: {found}")

        before = both()
        killed = next(iter(before))
        assert container.run("python", "-c", f"import os; os.kill({killed}, 9)").returncode == 0
        assert len(set(before) & set(both(gone=killed))) == 1
        for _ in range(8):  # a connection each, so that both answer
            answer = httpx.post(f"{container.address}/v1/explain", data={"model": BRAIN}, files=[HEAD], timeout=60)
            assert answer.json()["results"][0]["status"] == "ok", answer.text
