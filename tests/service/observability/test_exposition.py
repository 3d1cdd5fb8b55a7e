"""Several worker processes, as BentoML starts them, are one service to Prometheus."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.server_folder import server_folder

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import sys
from service.observability import IMAGES, JOBS_WAITING, MODEL_INFO, QUEUE_SECONDS
from service.observability.metrics import REQUESTS_IN_FLIGHT
number = int(sys.argv[1])
IMAGES.labels("m", "gradcam", "ok").inc(number)
QUEUE_SECONDS.labels("m").observe(0.02 * number)
REQUESTS_IN_FLIGHT.inc(number)
JOBS_WAITING.set(number)
MODEL_INFO.labels("m", "1.0.0", "cpu").set(1)
print("ready", flush=True)
sys.stdin.read()
"""
SCRAPE = "from service.observability.exposition import exposition; print(exposition().decode(), end='')"


def worker(number: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(number)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def scraped(environment: dict[str, str]) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRAPE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(done.stdout):
        for one in family.samples:
            at = one.labels.get("le", "")
            found.setdefault(f"{one.name}{at and '|'}{at}", []).append(one.value)
    return found


def test_workers_add_up_and_a_killed_one_leaves_no_gauge(tmp_path):
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    first, second = worker(1, environment), worker(4, environment)
    try:
        both = scraped(environment)
        assert both["radiolucent_images_total"] == [5]
        assert both["radiolucent_queue_seconds_count"] == [2]
        assert both["radiolucent_queue_seconds_bucket|0.025"] == [1]
        assert both["radiolucent_queue_seconds_bucket|0.1"] == [2]
        assert both["radiolucent_requests_in_flight"] == [5]
        assert both["radiolucent_jobs_waiting"] == [4]  # of one database that both see
        assert both["radiolucent_model_info"] == [1, 1]  # by process
        second.kill()
        second.wait(10)
        rest = scraped(environment)
        assert rest["radiolucent_images_total"] == [5]
        assert rest["radiolucent_requests_in_flight"] == rest["radiolucent_jobs_waiting"] == [1]
        assert rest["radiolucent_model_info"] == [1]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate(timeout=10)


def test_a_worker_that_has_just_opened_its_files_is_no_fault(tmp_path):
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for kind in ("counter", "histogram", "gauge_livesum"):
        (tmp_path / f"{kind}_{os.getpid()}.db").touch()  # as they are before they are given their size
    running = worker(3, environment)
    try:
        assert scraped(environment)["radiolucent_images_total"] == [3]
    finally:
        running.kill()
        running.communicate(timeout=10)


def test_every_server_has_a_folder_of_its_own_and_folders_of_the_dead_go(tmp_path):
    shared = tmp_path / "prometheus_multiproc_dir"
    program = (
        "import os, sys\nfrom service.server_folder import server_folder\n"
        "print(server_folder({'PROMETHEUS_MULTIPROC_DIR': sys.argv[1]}))"
    )
    # A supervisor of two workers, and after it another.
    supervisor = (
        f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {program!r}, sys.argv[1]])"
    )

    def folders() -> list[Path]:
        command = [sys.executable, "-c", supervisor, str(shared)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return [Path(line) for line in done.stdout.splitlines()]

    first, same = folders()
    assert first == same
    assert first.stat().st_mode & 0o777 == 0o700
    mine = server_folder({"PROMETHEUS_MULTIPROC_DIR": str(shared)})
    second, _ = folders()
    assert len({first, second, mine}) == 3
    assert not first.exists()
    assert mine is not None
    assert mine.is_dir()
    assert server_folder({}) is None
