"""The real server, asking callers who they are."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from io import BytesIO

import httpx
import numpy as np
import pytest
from bright import SIDE, png, write_bundle_into
from dicom_writers import classic_mr, saved
from serving import Service

from service.access.keys import make_key, write_keys
from tests.processes import free_port

pytestmark = pytest.mark.server
PICTURE = png(np.full((SIDE, SIDE), 77, np.uint8))
KINDS = ("predict", "explain", "metrics", "admin")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def keys(place):
    made = {kind: make_key(kind, (kind,), None, "") for kind in KINDS}
    made |= {name: make_key(name, ("predict",), None, "") for name in ("leaving", "hasty")}
    made |= {name: make_key(name, ("explain",), None, "") for name in ("explain.2", "stranger")}
    key, record = made["explain.2"]
    made["explain.2"] = key, record.model_copy(update={"holder": "explain"})
    write_keys(place / "keys.json", tuple(record for _, record in made.values()))
    return {name: key for name, (key, _) in made.items()}


@pytest.fixture(scope="module")
def service(place, keys):
    write_bundle_into(place / "models", "bright")
    (place / "rules.toml").write_text('[[rule]]\nname = "MR"\nmodel = "bright"\nmodality = "MR"\n')
    settings = {
        "RADIOLUCENT_MODELS": str(place / "models"),
        "RADIOLUCENT_KEYS": str(place / "keys.json"),
        "RADIOLUCENT_AUDIT_LOG": str(place / "audit.log"),
        "RADIOLUCENT_RATE": "40/hour",
        "RADIOLUCENT_CORS_ORIGINS": '["https://viewer.example"]',
        "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{place}/jobs.db",
        "RADIOLUCENT_STUDY_FOLDER": str(place / "studies"),
        "RADIOLUCENT_READER_STUDIES": f"sqlite:///{place}/readers.db",
        "RADIOLUCENT_SITE_KEY": str(place / "site.key"),
        "RADIOLUCENT_ARCHIVES": '{"pacs": {"url": "http://127.0.0.1:9/dicom-web"}}',
        "RADIOLUCENT_RULES": str(place / "rules.toml"),
    }
    running = Service(free_port(), place / "log.txt", settings)
    yield running.start()
    running.stop()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def explain(service: httpx.Client, key: str) -> httpx.Response:
    files = [("images", ("Doe^Jane.png", PICTURE))]
    return service.post("/v1/explain", data={"model": "bright"}, files=files, headers=bearer(key))


def audited(place, who: str, status: int) -> list[dict]:
    """The audit log once it ends with an answer of this status to `who`: a line is written after its answer is sent."""
    until = time.monotonic() + 60
    while True:
        text = (place / "audit.log").read_text() if (place / "audit.log").exists() else ""
        lines = [json.loads(line) for line in text.splitlines()] if text.endswith("\n") else []
        if lines and (lines[-1]["who"], lines[-1]["status"]) == (who, status):
            return lines
        assert time.monotonic() < until, lines[-2:]
        time.sleep(0.05)


def zipped(content: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.dcm", content)
    return buffer.getvalue()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/", "/page/page.js", "/study"])
def test_probes_and_pages_are_open(service, path):
    assert service.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/predict"),
        ("GET", "/v1/jobs"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/schema.json"),
        ("GET", "/nothing"),
        ("POST", "/v1/explain/"),
    ],
)
def test_nothing_else_is_answered_to_somebody_unknown(service, method, path):
    for headers in (
        {},
        bearer("rl_" + "A" * 43),
        bearer("x"),
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !"},
    ):
        answer = service.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith(("Bearer", "Basic"))
        assert answer.json()["type"].endswith("unauthenticated")


def test_a_key_in_an_address_is_no_key(service, keys):
    assert service.get("/v1/models", params={"key": keys["admin"], "access_token": keys["admin"]}).status_code == 401


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models", {"predict", "explain", "admin"}),
        ("/v1/explanations/none", {"explain", "admin"}),
        ("/v1/jobs", {"admin"}),
        ("/metrics", {"metrics", "admin"}),
        ("/schema.json", {"admin"}),
        ("/nothing", {"admin"}),
    ],
)
def test_each_scope_opens_what_it_is_for(service, keys, path, allowed):
    statuses = {kind: service.get(path, headers=bearer(keys[kind])).status_code for kind in KINDS}
    assert {kind for kind, status in statuses.items() if status != 403} == allowed
    assert not {401, 429, 500} & set(statuses.values())


def test_a_browser_reads_the_documentation_with_a_key_as_password_but_asks_no_model_so(service, keys):
    answer = service.get("/docs", auth=("", keys["predict"]))
    assert answer.status_code == 200
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"].split("style-src")[0]
    assert service.get("/openapi.json", auth=("any", keys["predict"])).status_code == 200
    assert service.get("/docs").headers["www-authenticate"].startswith("Basic")
    assert service.get("/v1/models", auth=("", keys["predict"])).status_code == 401


def test_every_answer_has_the_headers_that_keep_it_safe(service, keys):
    for answer in (
        service.get("/v1/models", headers=bearer(keys["predict"])),
        service.get("/v1/models"),
        service.get("/livez"),
        service.get("/nothing", headers=bearer(keys["admin"])),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers
    page = service.get("/").headers
    assert page.get_list("content-security-policy", split_commas=False)[0].startswith("default-src 'none'; script-src")
    assert len(page.get_list("content-security-policy")) == 1


def test_pages_of_other_sites_may_ask_only_where_that_is_set(service):
    def preflight(origin: str) -> httpx.Response:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return service.options("/v1/explain", headers=headers | {"Access-Control-Request-Headers": asked})

    asked = "accept, authorization, content-type, traceparent, tracestate, x-deadline-ms, x-request-id"
    allowed = preflight("https://viewer.example")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    other = preflight("https://evil.example")
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers
    refused = service.get("/v1/models", headers={"Origin": "https://viewer.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://viewer.example"
    assert "access-control-allow-credentials" not in refused.headers
    seen = {name.strip().lower() for name in refused.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "www-authenticate"} <= seen & set(refused.headers)
    assert {"location", "retry-after", "x-labels", "x-targets"} <= seen


def test_the_audit_log_says_who_asked_what_of_which_file_and_names_nobody(service, keys, place):
    answer = explain(service, keys["explain"])
    assert answer.status_code == 200
    assert explain(service, keys["predict"]).status_code == 403
    *_, asked, refused = audited(place, "key:predict", 403)
    assert asked["who"] == "key:explain"
    assert (asked["method"], asked["route"], asked["status"]) == ("POST", "/v1/explain", 200)
    assert asked["files"] == [hashlib.sha256(PICTURE).hexdigest()]
    assert asked["models"] == [f"bright {answer.json()['model']['version']}"]
    assert asked["request"] == answer.json()["request_id"] == answer.headers["x-request-id"]
    assert abs(datetime.fromisoformat(asked["time"]).timestamp() - time.time()) < 60
    assert (refused["who"], refused["status"], refused["files"]) == ("key:predict", 403, [])
    assert (place / "audit.log").stat().st_mode & 0o777 == 0o600
    for text in ((place / "audit.log").read_text(), (place / "log.txt").read_text()):
        assert "Doe" not in text
        assert not any(key in text for key in keys.values())


def test_a_job_is_its_callers_and_does_not_exist_for_others(service, keys):
    files = [("images", ("a.png", PICTURE))]
    made = service.post("/v1/explanations", data={"model": "bright"}, files=files, headers=bearer(keys["explain"]))
    assert made.status_code == 202
    instances = zipped(saved(classic_mr([np.full((SIDE, SIDE), 9, np.uint8)])[0]))
    queued = service.post(
        "/v1/studies",
        params={"store": "pacs"},
        content=instances,
        headers=bearer(keys["explain"]) | {"Content-Type": "application/zip"},
    )
    assert queued.status_code == 202
    for url in (made.headers["location"], queued.headers["location"]):
        stranger, missing = (
            service.get(each, headers=bearer(keys["stranger"])) for each in (url, f"{url[:-9]}AAAAAAAAA")
        )
        assert (stranger.status_code, missing.status_code) == (404, 404)
        assert stranger.json() | {"request_id": ""} == missing.json() | {"request_id": ""}
        assert service.delete(url, headers=bearer(keys["stranger"])).status_code == 404
        for name in ("explain", "explain.2", "admin"):
            assert service.get(url, headers=bearer(keys[name])).status_code == 200
        assert service.delete(url, headers=bearer(keys["explain.2"])).status_code == 204
        assert service.get(url, headers=bearer(keys["explain"])).status_code == 404
    results = f"{queued.headers['location']}/results"
    assert service.get(results, headers=bearer(keys["stranger"])).status_code == 404


def test_a_log_that_the_host_moved_away_is_begun_anew(service, keys, place):
    moved = place / "audit.log.1"
    service.get("/readyz")  # a request's line follows its answer: those of other tests are there by now
    (place / "audit.log").rename(moved)
    before = moved.read_text()
    service.get("/v1/models", headers=bearer(keys["predict"]))
    assert [line["who"] for line in audited(place, "key:predict", 200)] == ["key:predict"]
    assert moved.read_text() == before
    (place / "audit.log").unlink()
    moved.rename(place / "audit.log")


def test_a_revoked_key_is_refused_without_a_restart(service, keys, place):
    assert service.get("/v1/models", headers=bearer(keys["leaving"])).status_code == 200
    stored = json.loads((place / "keys.json").read_text())
    stored["keys"] = [key for key in stored["keys"] if key["id"] != "leaving"]
    (place / "keys.json").write_text(json.dumps(stored))
    until = time.monotonic() + 60
    while service.get("/v1/models", headers=bearer(keys["leaving"])).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.3)
    assert service.get("/v1/models", headers=bearer(keys["predict"])).status_code == 200


def test_who_asks_too_often_is_told_when_to_come_back_and_others_are_answered(service, keys):
    with ThreadPoolExecutor(4) as pool:
        ask = lambda _: service.get("/v1/models", headers=bearer(keys["hasty"]))  # noqa: E731
        answers = list(pool.map(ask, range(50)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert [answer.status_code for answer in answers].count(200) == 40
    assert len(refused) == 10
    assert refused[0].json()["type"].endswith("too-many-requests")
    assert 1 <= int(refused[0].headers["retry-after"]) <= 90
    assert service.get("/v1/models", headers=bearer(keys["admin"])).status_code == 200


def test_a_readers_code_is_not_taken_for_a_key(service):
    answer = service.get("/v1/reading", headers=bearer("no-code"))
    assert answer.status_code == 401
    assert answer.json()["type"].endswith("unknown-reader")
