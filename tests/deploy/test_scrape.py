"""A real Prometheus with the shipped rules scrapes the real service."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Service

from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "docs" / "images" / "mni152-slice.png"
MODEL = "brain-mri-resnet50"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]


@pytest.fixture
def prometheus(tmp_path) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the service and of the Prometheus that scrapes it every second."""
    ports = free_port(), free_port()
    shutil.copytree(ROOT / "deploy" / "prometheus", tmp_path / "prometheus")
    configuration = tmp_path / "prometheus" / "prometheus.yml"
    text = configuration.read_text().replace("radiolucent:3000", f"127.0.0.1:{ports[0]}").replace("15s", "1s")
    configuration.write_text(text)
    service = Service(ports[0], tmp_path / "service.log", {"XDG_STATE_HOME": str(tmp_path / "state")})
    command = [f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    client = service.start()
    try:
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                ["prometheus", *command, f"--web.listen-address=127.0.0.1:{ports[1]}"], stdout=log, stderr=log
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", timeout=30) as asked:
                yield client, asked
        finally:
            process.terminate()
            process.wait(30)
    finally:
        service.stop()


def values(asked: httpx.Client, expression: str) -> dict[str, float]:
    """The answer by the label `stage` or `outcome`; empty while Prometheus starts."""
    try:
        answer = asked.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return {}
    found = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return {r["metric"].get("stage", r["metric"].get("outcome", "")): float(r["value"][1]) for r in found}


def test_rules_over_real_scrapes_give_percentiles_by_stage(prometheus):
    client, asked = prometheus
    recorded = f'stage_model_method:radiolucent_stage_seconds:p95_5m{{model="{MODEL}", method="gradcam"}} > 0'
    answered = "model_method_outcome:radiolucent_images:rate5m > 0"
    stages: dict[str, float] = {}
    often: set[str] = set()
    end = time.monotonic() + 60
    # groups of rules are evaluated each at its own moment
    while (len(stages) < 6 or not values(asked, answered) or often != {"ok"}) and time.monotonic() < end:
        answer = client.post("/v1/explain", data={"model": MODEL}, files={"images": IMAGE.read_bytes()})
        assert answer.status_code == 200
        stages = values(asked, recorded)
        groups = asked.get("/api/v1/rules").json()["data"]["groups"] if stages else []  # it is up
        often = {rule["health"] for group in groups for rule in group["rules"] if group["interval"] < 60}
        time.sleep(0.5)
    assert set(stages) == {"receive", "decode", "queue", "inference", "explanation", "encode"}
    assert 0 < stages["queue"] < stages["inference"] < 30
    assert values(asked, 'up{job="radiolucent"}') == {"": 1}
    assert values(asked, answered).keys() == {"ok"}
    seldom = [rule["health"] for group in groups for rule in group["rules"] if group["interval"] >= 60]
    assert often == {"ok"}
    assert set(seldom) <= {"ok", "unknown"}, "drift, every five minutes: not evaluated yet, or well"
    assert values(asked, 'ALERTS{alertname="RadiolucentDown"}') == {}
