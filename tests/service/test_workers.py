"""Several worker processes of one real server, and what each has of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from bright import png
from prometheus_client.parser import text_string_to_metric_families
from serving import ROOT, Service

from service.bundle import read_bundle
from service.engine import open_graph
from service.settings import SHIPPED_MODELS, ScpSettings, Settings
from service.shared_graphs import forget_graphs, shared_graph
from service.workers import cores_here, count_workers, cuda_devices, device_memory, device_of, worker_settings
from tests.processes import free_port

BRAIN = SHIPPED_MODELS / "brain-mri-resnet50"


@pytest.mark.parametrize(
    ("workers", "device", "devices", "cores", "expected"),
    [
        (3, "auto", (), 2, 3),
        ("auto", "auto", (), 2, 1),
        ("auto", "auto", (), 16, 4),
        ("auto", "auto", ("80",), 16, 4),  # as the cores feed
        ("auto", "auto", ("24", "16"), 64, 5),  # as the memory holds
        ("auto", "auto", ("16", "24"), 64, 4),  # a fifth would be the smaller one's
        ("auto", "auto", ("4", "4"), 64, 2),  # one each, in spite of it
        ("auto", "auto", ("80", "80", "80"), 2, 3),
        ("auto", "cpu", ("80", "80"), 64, 16),
    ],
)
def test_workers_are_as_many_as_set_or_as_the_machine_feeds(workers, device, devices, cores, expected, monkeypatch):
    monkeypatch.setattr("service.workers.device_memory", lambda name: int(name) * 2**30)
    assert count_workers(Settings(workers=workers, device=device), devices, cores) == expected


@pytest.mark.parametrize("name", ["99", "GPU-5ef"])
def test_a_device_that_nvml_does_not_know_has_no_memory_for_a_second_worker(name):
    assert device_memory(name) == 0
    assert count_workers(Settings(workers="auto"), (name,), 64) == 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("6400000 100000", 8), (None, 8)],
)
def test_a_container_has_the_cores_of_its_limit(limit, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cores_here(tmp_path / "cpu.max") == expected


def test_a_worker_has_its_part_of_the_cores():
    half = worker_settings(Settings(), 2, 16)
    assert (half.threads, half.decode_threads) == (8, 4)
    assert worker_settings(Settings(), 5, 2).threads == 1
    assert worker_settings(Settings(threads=3, decode_threads=2), 2, 16) == Settings(threads=3, decode_threads=2)


def test_workers_take_the_devices_in_turn(tmp_path):
    devices = cuda_devices({"CUDA_VISIBLE_DEVICES": "2, GPU-5ef"}, tmp_path)
    taken = [device_of(worker, 3, devices)["CUDA_VISIBLE_DEVICES"] for worker in (1, 2, 3)]
    assert taken == ["2", "GPU-5ef", "2"]
    assert device_of(1, 1, devices) == {}
    assert device_of(1, 2, ()) == {}


def test_devices_are_the_drivers_where_none_are_named(tmp_path):
    for bus in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / bus).mkdir()
    assert cuda_devices({}, tmp_path) == ("0", "1")
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
    assert cuda_devices({}, tmp_path / "none") == ()


@pytest.mark.parametrize("name", ["graph", "gradients", "int8"])
def test_a_shared_graph_computes_bit_for_bit_the_same(tmp_path, name):
    graph = getattr(read_bundle(BRAIN), name)
    own = open_graph(graph, threads=1, device="cpu").session
    made, mapped = (open_graph(graph, threads=1, device="cpu", shared=tmp_path).session for _ in range(2))
    assert len(list(tmp_path.rglob("*.weights"))) == 1
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 1), np.uint8)
    pixels = {"pixels": images[:1].astype(np.float32), "weights": np.ones((1, 4), np.float32)}
    inputs = pixels if name == "gradients" else {"images": images}
    expected = own.run(None, inputs)
    for session in (made, mapped):
        assert all(np.array_equal(*pair) for pair in zip(session.run(None, inputs), expected, strict=True))


def test_a_graph_is_made_once_anew_after_it_was_deleted_and_not_where_there_is_no_room(tmp_path, caplog):
    made: list[Path] = []

    def save(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"graph")

    def fail(path: Path) -> None:
        path.write_bytes(b"gra")
        raise RuntimeError("no space left on the device")

    graph = BRAIN / "model.onnx"
    assert shared_graph(graph, tmp_path, fail) is None
    assert "do not share" in caplog.text
    places = [shared_graph(graph, tmp_path, save) for _ in range(2)]
    assert len(made) == 1
    assert places[0] == places[1]
    assert places[0].read_bytes() == b"graph"
    forget_graphs(tmp_path)
    assert not places[0].exists()
    assert shared_graph(graph, tmp_path, save) == places[0]
    assert len(made) == 2


STORES = """
import sys
from pathlib import Path
from service.jobs.store import JobStore
from service.reader_study.rows import open_database
from service.studies.store import StudyStore
print(flush=True)
sys.stdin.readline()
JobStore(sys.argv[1], lease=5, ttl=60, limit=9)
StudyStore(sys.argv[1], Path(sys.argv[2]), lease=5, ttl=60, limit=9)
open_database(sys.argv[1])
"""


def test_workers_that_start_together_make_the_tables_together(database, tmp_path):
    command = [sys.executable, "-c", STORES, database, str(tmp_path / "studies")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    workers = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(6)]
    for worker in workers:
        worker.stdout.readline()  # all have imported: the race is closest then
    for worker in workers:
        with contextlib.suppress(BrokenPipeError):  # one that has ended is heard of below
            worker.stdin.write(b"\n")
            worker.stdin.flush()
    assert [worker.communicate(timeout=60)[1].decode()[-300:] for worker in workers] == [""] * 6
    assert [worker.returncode for worker in workers] == [0] * 6


CONNECTING = """
import sys
from service.database import connect
for line in sys.stdin:
    engine = connect(f"sqlite:///{line.strip()}", "")
    engine.connect().close()
    engine.dispose()
    print("open", flush=True)
"""


def test_workers_that_open_a_new_file_together_wait_for_each_other(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", CONNECTING], cwd=ROOT, **pipes) for _ in range(6)]
    heard = []
    for number in range(300):  # in each there are few moments when SQLite refuses to wait
        for worker in workers:
            with contextlib.suppress(BrokenPipeError):  # one that has ended is heard of below
                worker.stdin.write(f"{tmp_path / str(number)}\n")
                worker.stdin.flush()
        heard += [worker.stdout.readline().strip() for worker in workers]
    for worker in workers:
        worker.communicate(timeout=60)
    assert heard == ["open"] * len(heard)


@pytest.fixture
def service(tmp_path):
    scp = ScpSettings(enabled=True, callers=("MODALITY",), port=free_port(), target="pacs")
    settings = {
        "RADIOLUCENT_WORKERS": "2",
        "RADIOLUCENT_JOB_LEASE_S": "3",
        "RADIOLUCENT_SCP": scp.model_dump_json(),
        "RADIOLUCENT_ARCHIVES": '{"pacs": {"url": "http://127.0.0.1:9/dicom-web"}}',
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    service = Service(free_port(), tmp_path / "log.txt", settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def workers_of(service: Service) -> list[psutil.Process]:
    living = [child for child in service.supervisor.children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "_bentoml_impl.worker.service" in child.cmdline()]


def serving(service: Service) -> set[str]:
    """Process ids of the workers that have loaded the brain model, as metrics tell."""
    families = text_string_to_metric_families(httpx.get(f"{service.address}/metrics").text)
    samples = [s for family in families for s in family.samples if s.name == "radiolucent_model_info"]
    return {s.labels["pid"] for s in samples if s.labels["model"] == BRAIN.name}


def until(condition, patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def listening(worker: psutil.Process) -> set[int]:
    return {c.laddr.port for c in worker.net_connections() if c.status == "LISTEN"}


def mapped_weights(worker: psutil.Process) -> set[str]:
    return {m.path for m in worker.memory_maps() if m.path.endswith("model.weights")}


@pytest.mark.server
def test_two_workers_share_weights_port_and_jobs_and_one_that_is_killed_is_replaced(service, tmp_path):
    until(lambda: len(serving(service)) == 2)
    first, second = workers_of(service)
    until(lambda: len(mapped_weights(first) & mapped_weights(second)) == 3)  # two classifiers, one segmenter
    until(lambda: len(listening(first) ^ listening(second)) == 1)  # C-STORE's
    everywhere = listening(first) & listening(second)

    image = png(np.full((64, 64), 80, np.uint8))
    asked = {"model": BRAIN.name, "method": "occlusion", "budget": "64"}  # seconds: it is not done before the kill
    form = {"data": asked, "files": {"images": ("a.png", image)}}
    location = httpx.post(f"{service.address}/v1/explanations", timeout=30, **form).headers["Location"]
    (victim,) = [worker for worker in (first, second) if listening(worker) > everywhere]
    ports = listening(victim)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: len(serving(service) - {str(victim.pid)}) == 2)
    new = [worker for worker in workers_of(service) if worker.pid not in (first.pid, second.pid)]
    assert len(new) == 1
    until(lambda: listening(new[0]) == ports)

    def answers() -> set[str]:  # new connections, so that either worker is asked
        return {httpx.get(service.address + location).json()["status"] for _ in range(8)}

    until(lambda: answers() == {"done"})

    weights = [Path(path) for path in mapped_weights(new[0])]
    assert len(weights) == 3
    assert all(path.exists() for path in weights)
    service.stop(signal.SIGTERM)
    assert not any(path.exists() for path in weights)
