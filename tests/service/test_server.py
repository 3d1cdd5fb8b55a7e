"""The real BentoML server, as a process, over a socket."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from bright import GRAPH_NAME, SIDE, png, write_bundle_into
from spots import write_spots_into

from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_bundle_into(models, "bright")
    write_spots_into(models, "spots")
    (write_bundle_into(models, "bad") / GRAPH_NAME).write_bytes(b"no graph")
    log = (models / "log.txt").open("w+")
    port = free_port()
    environment = os.environ | {"RADIOLUCENT_MODELS": str(models), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(240):
            try:
                client.get("/readyz")
                break
            except httpx.TransportError:
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.25)
        client.log = Path(log.name)
        yield client
        process.send_signal(signal.SIGINT)
        process.wait(30)
    log.close()


def upload(name: str, value: int) -> tuple[str, tuple[str, bytes]]:
    return ("images", (name, png(np.full((SIDE, SIDE), value, np.uint8))))


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
@pytest.mark.parametrize(("asked", "status"), [("bytes=99999999-", 416), ("bytes=a-b", 400)])
def test_a_range_that_a_file_does_not_have_is_a_problem(server, path, asked, status):
    answer = server.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    length = len(server.get(path).content)
    assert answer.headers.get("content-range") == (f"bytes */{length}" if status == 416 else None)


def test_readiness_names_what_serves_and_what_was_refused(server):
    answer = server.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["models"] == ["bright", "spots"]
    assert "SHA-256" in answer.json()["refused"]["bad"]
    assert server.get("/healthz").status_code == server.get("/livez").status_code == 200


def test_concurrent_requests_get_their_own_answers(server):
    def ask(k: int) -> list[str]:
        files = [upload(f"{k}-{n}.png", 20 * n) for n in range(3)]
        answer = server.post("/v1/explain", data={"model": "bright", "target": "all"}, files=files)
        assert answer.status_code == 200
        return [result["name"] for result in answer.json()["results"]]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert answers == [[f"{k}-{n}.png" for n in range(3)] for k in range(64)]


def test_concurrent_requests_are_outlined_and_counted(server):
    def ask(k: int) -> list[list[float]]:
        pixels = np.zeros((64, 64), np.uint8)
        pixels[8 + k : 24 + k, 16:48] = 255
        answer = server.post("/v1/segment", data={"model": "spots"}, files=[("images", ("a.png", png(pixels)))])
        assert answer.status_code == 200
        return answer.json()["results"][0]["contours"][0]

    with ThreadPoolExecutor(8) as pool:
        for k, line in enumerate(pool.map(ask, range(24))):
            assert np.mean(line, axis=0) == pytest.approx([32, 16 + k], abs=1.5)
    text = server.get("/metrics").text
    assert re.search(r'radiolucent_stage_seconds_count{[^}]*method="segment"[^}]*stage="outline"[^}]*} [1-9]', text)
    assert re.search(r'radiolucent_images_total{[^}]*method="segment"[^}]*outcome="ok"[^}]*} 24', text)


def test_metrics_count_images_stages_and_batches(server):
    server.post("/v1/predict", data={"model": "bright"}, files=[upload("patient-name.png", 9)])
    text = server.get("/metrics").text
    for stage in ("decode", "queue", "inference", "explanation", "encode"):
        assert re.search(rf'radiolucent_stage_seconds_count{{[^}}]*stage="{stage}"[^}}]*}} [1-9]', text)
    assert re.search(r'radiolucent_batch_images_count{model="bright"} [1-9]', text)
    assert re.search(r'radiolucent_model_info{model="bright",[^}]*provider="cpu"[^}]*} 1', text)
    assert "radiolucent_bundles_refused 1.0" in text
    assert "patient-name" not in text
    assert "patient-name" not in server.log.read_text()


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing"])
def test_unknown_paths_are_problems(server, path):
    answer = server.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


def test_the_page_is_ours_and_runs_no_foreign_script(server):
    answer = server.get("/")
    assert "<title>Radiolucent</title>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert server.get("/page/page.js").headers["content-type"].startswith("text/javascript")
    assert server.head("/").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs", "/livez"])
def test_head_is_what_get_would_answer_without_its_body(server, path):
    with httpx.Client(base_url=server.base_url, timeout=60) as client:
        found, whole = client.head(path), client.get(path)  # on one connection: bytes of a body would be in the way
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == whole.headers["content-type"]
    assert server.head("/v1/predict").status_code == 405


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
def test_probes_can_be_read_alone(server, method, path):
    answer = server.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_log_names_a_head_by_its_route(server):
    assert server.head("/v1/models").status_code == 200
    end = time.monotonic() + 10  # it is logged once it is answered
    while "HEAD /v1/models 200" not in server.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_form_of_another_site_is_refused(server, origin):
    """Browsers send forms without asking first, and only the answer is kept from the page."""
    answer = server.post(
        "/v1/predict", data={"model": "bright"}, files=[upload("a.png", 9)], headers={"Origin": origin}
    )
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:radiolucent:problem:not-local")
    own = str(server.base_url).rstrip("/")
    answer = server.post("/v1/predict", data={"model": "bright"}, files=[upload("a.png", 9)], headers={"Origin": own})
    assert answer.status_code == 200


def test_the_documentation_needs_no_other_host(server):
    page = server.get("/docs").text
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert asset.startswith("/")
        assert server.get(asset).status_code == 200
    assert server.get("/openapi.json").status_code == 200


def test_the_service_process_holds_no_training_framework():
    names = ("torch", "training", "export", "onnxruntime")
    code = f"import sys, service.app, service.serving; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_request_is_kept_until_a_time_limit_of_bentoml_is_over():
    code = (
        "from service.app import Radiolucent; app = Radiolucent.to_asgi(is_main=True); "
        "print([each.cls.__name__ for each in app.user_middleware])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Around" in done.stdout
    assert "TimeoutMiddleware" not in done.stdout
