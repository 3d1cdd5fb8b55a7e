"""Jobs over HTTP, on the real server as a process that is killed without warning."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from bright import SIDE, png, write_bundle_into
from processes import kill_tree

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.server


class Server:
    """Starts, kills and starts again, on the same database."""

    def __init__(self, folder: Path) -> None:
        write_bundle_into(folder / "models", "bright")
        self.environment = os.environ | {
            "RADIOLUCENT_MODELS": str(folder / "models"),
            "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{folder / 'jobs.sqlite'}",
            "RADIOLUCENT_JOB_LEASE_S": "2",
            "RADIOLUCENT_INLINE_SECONDS": "0.5",
            "BENTOML_DO_NOT_TRACK": "True",
        }
        self.log = folder / "log.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(240):
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.25)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        kill_tree(self.process.pid)
        self.process.wait(30)

    def post(self, path: str = "/v1/explanations", **fields: str) -> httpx.Response:
        pixels = np.random.default_rng(0).integers(60, 256, (SIDE, SIDE), np.uint8)
        return self.client.post(
            path,
            data={"model": "bright", "method": "kernelshap", "target": "bright"} | fields,
            files=[("images", ("slice.png", png(pixels), "image/png"))],
        )

    def predict(self) -> httpx.Response:
        pixels = np.full((SIDE, SIDE), 100, np.uint8)
        return self.client.post("/v1/predict", data={"model": "bright"}, files=[("images", ("a.png", png(pixels)))])

    def wait(self, url: str, *statuses: str, seconds: float = 60) -> dict:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self.client.get(url)
            assert answer.status_code == 200, answer.text
            if answer.json()["status"] in statuses:
                return answer.json()
            time.sleep(0.1)
        raise AssertionError(answer.text)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("jobs"))
    yield server
    server.kill()
    server.client.close()


LONG = {"budget": "100000", "seed": "1"}


def test_a_job_gives_what_explain_gives(server):
    made = server.post(budget="300")
    assert made.status_code == 202
    url = made.headers["location"]
    assert made.json()["url"] == url
    assert made.json()["status"] == "queued"
    done = server.wait(url, "done", "failed")
    inline = server.post("/v1/explain", budget="300", deadline_ms="60000")
    (expected,) = inline.json()["results"]
    (found,) = done["result"]["results"]
    assert found["explanations"] == expected["explanations"]
    assert found["explanations"][0]["evaluations"] > 50
    assert done["progress"] == 1.0
    assert done["error"] is None


def test_a_job_survives_kill_9(server):
    url = server.post(**LONG, method="shap").headers["location"]
    other = server.post(**LONG).headers["location"]
    server.wait(url, "running", "done")
    server.kill()
    server.start()
    assert server.wait(url, "done", "failed", seconds=120)["status"] == "done"
    assert server.wait(other, "running", "done")["status"] in {"running", "done"}
    assert server.client.delete(other).status_code == 204


def test_a_running_job_shows_progress_and_is_cancelled_by_delete(server):
    url = server.post(method="kernelshap", budget="100000", seed="3").headers["location"]
    server.wait(url, "running", "done")
    predicted = server.predict()  # not starved meanwhile
    assert predicted.status_code == 200
    assert server.client.delete(url).status_code == 204
    gone = server.client.get(url)
    assert gone.status_code == 404
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json()["type"].endswith("unknown-job")
    after = server.post(budget="300").headers["location"]
    assert server.wait(after, "done")["status"] == "done"  # the worker went on to the next


def test_a_request_that_explain_would_refuse_stores_nothing(server):
    for fields, status in [
        ({"method": "nonsense"}, 422),
        ({"model": "nonsense"}, 404),
        ({"target": "nonsense"}, 422),
        ({"budget": "0"}, 422),
        ({"baseline": "pink"}, 422),
    ]:
        answer = server.post(**fields)
        assert answer.status_code == status, answer.text
        assert "location" not in answer.headers


def test_a_job_that_cannot_be_done_says_why(server):
    url = server.post(method="occlusion", budget="3").headers["location"]
    failed = server.wait(url, "failed")
    assert failed["result"] is None
    assert failed["error"]["status"] == 422
    assert failed["error"]["type"].endswith("budget-too-small")


def test_the_log_names_neither_files_nor_jobs_in_full(server):
    url = server.post(budget="300").headers["location"]
    server.wait(url, "done")
    log = server.log.read_text()
    assert "slice.png" not in log
    assert url.rsplit("/", 1)[1] not in log
