from __future__ import annotations

import json
import re
import zlib

import numpy as np
import pytest
from bright import SIDE
from starlette.testclient import TestClient

from service.api import make_api
from service.reader_study.opinion import ITEMS
from service.reader_study.readings import ReadingStore
from service.reader_study.rows import open_database
from service.reader_study.store import StudyStore
from service.schemas import Problem


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'studies.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def codes(engine, make):
    return make(engine)


@pytest.fixture
def client(engine, pipeline, codes):
    api = make_api("test")
    api.state.pipeline = pipeline
    api.state.readings = ReadingStore(engine)
    with TestClient(api, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {codes['anna']}"
        yield client


def complete(case: dict) -> dict:
    ratings = dict.fromkeys(ITEMS, 4) if case["arm"] == "with" else {}
    return {"diagnosis": "bright", "confidence": 80, "ratings": ratings, "comment": "", "active_seconds": 0.01}


def begin(client) -> dict:
    return client.post("/v1/reading/next").json()["case"]


def send(client, case: dict, **changes):
    return client.post(f"/v1/reading/cases/{case['id']}/answer", json=complete(case) | changes)


def read_all(client) -> list[tuple[dict, dict]]:
    """Every case of the period, with what its answer was answered."""
    done = []
    while case := begin(client):
        answer = send(client, case)
        assert answer.status_code == 200
        done.append((case, answer.json()))
    return done


def test_a_session_tells_where_the_reader_is_and_starts_no_clock(client, engine):
    session = client.get("/v1/reading").json()
    assert (session["study"], session["reader"], session["state"]) == ("trial", "anna", "reading")
    assert (session["done"], session["total"], session["case"]) == (0, 12, None)
    assert session["classes"][0] == {"name": "bright", "display": "Bright"}
    assert session["items"] == list(ITEMS)
    store = StudyStore(engine)
    assert all(r.started is None for r in store.readings(store.study("trial"))["anna"])


def test_the_arms_differ_in_what_the_model_says(client):
    for case, _ in read_all(client):
        if case["arm"] == "without":
            assert case["prediction"] is None
        else:
            prediction = case["prediction"]
            assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)
            assert np.shape(prediction["map"]["saliency"]) == tuple(prediction["map"]["shape"])
            assert prediction["map"]["target"] == prediction["label"]
            assert (prediction["assessable"], prediction["reasons"]) == ("yes", [])


def test_nothing_that_is_sent_tells_the_truth_the_case_or_the_file(client, engine):
    """But the truth of training cases, after the answer."""
    store = StudyStore(engine)
    cases = store.cases(store.study("trial"))
    hidden = [case.code for case in cases] + [case.file_sha256 for case in cases] + ["john", "truth"]
    for _ in range(6):
        answers = [client.get("/v1/reading"), client.post("/v1/reading/next")]
        case = answers[1].json()["case"]
        path = f"/v1/reading/cases/{case['id']}"
        answers += [client.get(f"{path}/pixels"), client.put(f"{path}/draft", json={"revision": 1})]
        sent = "".join(answer.text + str(answer.headers) for answer in answers)
        assert not [word for word in hidden if word in sent]
        saved = send(client, case).json()
        assert (saved["truth"] in ("bright", "dark")) is case["training"]


def test_the_image_is_the_coordinators(client, tmp_path):
    case = begin(client)
    answer = client.get(f"/v1/reading/cases/{case['id']}/pixels")
    assert answer.headers["cache-control"] == "no-store"
    pixels = np.frombuffer(answer.content, np.uint8).reshape(case["pixels"]["height"], case["pixels"]["width"])
    assert pixels.shape == (SIDE, SIDE)
    originals = [path.read_bytes() for path in (tmp_path / "cases").glob("*.png")]
    assert any(zlib.crc32(pixels.tobytes()) == zlib.crc32(_decoded(content)) for content in originals)


def _decoded(content: bytes) -> bytes:
    from service.images.reading import read_frames

    return read_frames(content, "x")[0].pixels.tobytes()


def test_a_draft_comes_back_and_an_answer_cannot_be_changed(client):
    case = begin(client)
    path = f"/v1/reading/cases/{case['id']}"
    draft = {"diagnosis": "dark", "comment": "a thought", "active_seconds": 3.5, "revision": 4}
    assert client.put(f"{path}/draft", json=draft).json() == {"revision": 4}
    again = begin(client)
    assert (again["id"], again["revision"], again["draft"]["comment"]) == (case["id"], 4, "a thought")
    assert again["draft"]["confidence"] is None
    assert send(client, case).status_code == 200
    assert send(client, case).json() == send(client, case).json()  # sent again
    assert begin(client)["id"] != case["id"]
    refused = send(client, case, diagnosis="dark")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:radiolucent:problem:already-answered")


def test_the_washout_is_enforced(client):
    assert len(read_all(client)) == 6
    session = client.post("/v1/reading/next").json()
    assert (session["state"], session["case"], session["done"]) == ("washout", None, 6)
    assert session["opens_at"].endswith(("Z", "+00:00"))


def case_of_arm(client, arm: str) -> dict:
    while (case := begin(client))["arm"] != arm:
        send(client, case)
    return case


@pytest.mark.parametrize(
    ("arm", "changes", "says"),
    [
        ("without", {"diagnosis": None}, "missing: diagnosis"),
        ("without", {"diagnosis": "purple"}, "diagnosis: must be one of bright, dark, middle"),
        ("without", {"confidence": None}, "missing: confidence"),
        ("without", {"confidence": 101}, "confidence"),
        ("without", {"confidence": -1}, "confidence"),
        ("without", {"ratings": {"clear": 3}}, "no explanation is shown"),
        ("without", {"comment": "x" * 2001}, "comment"),
        ("without", {"active_seconds": -1}, "active_seconds"),
        ("without", {"surprise": 1}, "surprise"),
        ("with", {"ratings": {}}, "ratings.clear, ratings.plausible, ratings.relevant, ratings.useful, ratings.trust"),
        ("with", {"ratings": dict.fromkeys(ITEMS, 6)}, "each must be 1 to 5"),
        ("with", {"ratings": dict.fromkeys(ITEMS, 0)}, "each must be 1 to 5"),
        ("with", {"ratings": {"pretty": 3}}, "ratings"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_and_changes_nothing(client, arm, changes, says):
    case = case_of_arm(client, arm)
    answer = send(client, case, **changes)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert problem.type == "urn:radiolucent:problem:invalid-parameter"
    assert says in problem.detail
    assert begin(client) == case


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer nonsense", "Basic abc", "Bearer \u00e9"])
def test_without_the_code_there_is_nothing(client, header):
    case = begin(client)
    headers = {"Authorization": (header or "").encode("latin-1")}
    for method, path in [
        ("GET", ""),
        ("POST", "/next"),
        ("GET", f"/cases/{case['id']}/pixels"),
        ("PUT", f"/cases/{case['id']}/draft"),
        ("POST", f"/cases/{case['id']}/answer"),
    ]:
        answer = client.request(method, f"/v1/reading{path}", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:radiolucent:problem:unknown-reader")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("body", "status"), [(b"{", 422), (b"{}".ljust(2**16 + 1), 413)])
def test_the_code_is_looked_at_before_the_body(client, codes, body, status):
    path = f"/v1/reading/cases/{begin(client)['id']}"
    for code, answered in (("nonsense", 401), (codes["anna"], status)):
        headers = {"Authorization": f"Bearer {code}", "Content-Type": "application/json"}
        for method, end in (("PUT", "draft"), ("POST", "answer")):
            assert client.request(method, f"{path}/{end}", content=body, headers=headers).status_code == answered


def test_another_readers_case_is_unknown(client, codes):
    case = begin(client)
    for path, method in (("pixels", "GET"), ("draft", "PUT"), ("answer", "POST")):
        answer = client.request(
            method,
            f"/v1/reading/cases/{case['id']}/{path}",
            headers={"Authorization": f"Bearer {codes['ben']}"},
            json=(complete(case) if path == "answer" else {"revision": 1}),
        )
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:radiolucent:problem:unknown-reading")
    assert begin(client)["draft"] is None


def test_the_page_may_load_nothing_from_elsewhere(client):
    del client.headers["Authorization"]
    page = client.get("/study")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    text = page.text
    assert not re.search(r"<style|<script[^>]*>[^<]|\sstyle=|\son\w+=", text)
    assert "Research use only" in text
    parts = re.findall(r'(?:src|href)="(/[^"]+)"', text)
    seen: set[str] = set()
    while parts:
        part = parts.pop()
        seen.add(part)
        answer = client.get(part)
        assert answer.status_code == 200, part
        assert answer.headers["content-security-policy"] == policy
        assert not re.search(r"https?://", answer.text), part
        folder = part.rsplit("/", 1)[0]
        imported = re.findall(r'from "(\./|/page/)([\w.]+)"', answer.text)
        names = {f"{folder}/{name}" if place == "./" else f"{place}{name}" for place, name in imported}
        parts += names - seen
    assert {"/study/study.js", "/page/viewer.js", "/page/theme.css", "/page/colours.js"} <= seen
    again = client.get("/study", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/study/").text == text
    assert client.head("/study").status_code == 200
    for stranger in ("/study/plan.py", "/study/..%2Fplan.py", "/study/%2e%2e/plan.py"):
        assert client.get(stranger).status_code == 404


def test_logs_hold_nothing_of_what_readers_say(client, caplog):
    caplog.set_level("DEBUG")
    send(client, begin(client), comment="Mrs Miller again", diagnosis="dark")
    assert "Miller" not in caplog.text
    assert json.dumps(client.get("/v1/reading").json()).count("Miller") == 0
