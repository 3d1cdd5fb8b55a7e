from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.access.scopes import ROUTES, SCOPES, UNLISTED, granted, route_of

ROOT = Path(__file__).resolve().parents[3]
# Method and path of everything that the running service answers: ours, hidden ones too, and BentoML's own.
WALK = """
import json
from starlette.routing import Mount
from service.app import Radiolucent, answer
from service.serving import api

def walk(routes, prefix=""):
    for route in routes:
        if not isinstance(route, Mount):
            yield from ((method, prefix + route.path) for method in route.methods or ["GET"])
        elif route.app is answer:  # takes whatever has come so far
            yield from walk(api.routes)
            return
        elif getattr(route.app, "routes", None):
            yield from walk(route.app.routes, prefix + route.path)
        else:
            yield "GET", f"{prefix}{route.path}/some/file.js"

print(json.dumps([*walk(Radiolucent.to_asgi(is_main=True).routes)]))
"""


@pytest.fixture(scope="module")
def known() -> set[tuple[str, str]]:
    """In a process of its own: importing BentoML warns."""
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-W", "ignore", "-c", WALK]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return {(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])}


def test_every_route_has_a_decision_of_its_own(known):
    assert {("POST", "/v1/explain"), ("GET", "/metrics"), ("GET", "/livez"), ("GET", "/schema.json")} <= known
    undecided = sorted(row for row in known if row[0] != "OPTIONS" and route_of(*row) is UNLISTED)
    assert not undecided, "say in service/access/scopes.py who may ask these"


def test_every_decision_is_about_a_route_that_there_is(known):
    for decision in ROUTES:
        for method in decision.methods.split():
            if decision.path.endswith("/..."):
                assert any(path.startswith(decision.path[:-3]) for _, path in known), decision.path
            elif decision.path != "/v1/reading":
                assert (method, decision.path) in known, (method, decision.path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/explain/"),
        ("POST", "//v1/explain"),
        ("POST", "/V1/explain"),
        ("GET", "/v1/explain"),
        ("DELETE", "/v1/models"),
        ("GET", "/page"),
        ("GET", "/pages/x"),
        ("GET", "/v1/jobs/a/b"),
        ("PATCH", "/v1/reading/next"),
        ("GET", "/anything/else"),
    ],
)
def test_what_is_not_listed_exactly_needs_admin(method, path):
    assert route_of(method, path) is UNLISTED
    assert UNLISTED.need == "admin"


def test_head_is_as_get_and_names_stand_for_one_part():
    assert route_of("HEAD", "/v1/models") is route_of("GET", "/v1/models")
    assert route_of("GET", "/v1/jobs/a-b_c/results").path == "/v1/jobs/{job}/results"
    assert route_of("GET", "/page/examples/mni152-slice.png").need == "open"


def test_scopes_include_one_another():
    assert granted(("explain",)) == {"explain", "predict"}
    assert granted(("metrics",)) == {"metrics"}
    assert granted(("admin",)) == set(SCOPES)
    assert granted(()) == set()
