from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.access.door import check_door, check_local, is_loopback
from service.access.gate import Gate
from service.access.rates import Limits, Rates
from service.access.settings import AccessSettings
from service.errors import AccessError, NotLocal
from service.settings import Settings
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[3]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - refused


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"]
)
def test_addresses_of_this_machine_alone(host):
    assert is_loopback(host)
    check_door(AccessSettings(), host)


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "::", "192.168.1.2", "::ffff:192.168.1.2", "scanner.example", "localhost.example", "", "127.1"]
)
def test_any_other_address_needs_somebody_who_asks(host, tmp_path):
    with pytest.raises(AccessError, match="RADIOLUCENT_KEYS"):
        check_door(AccessSettings(), host)
    check_door(AccessSettings(insecure=True), host)
    check_door(AccessSettings(keys=tmp_path / "keys"), host)
    check_door(AccessSettings(oidc={"issuer": "https://id.example", "audience": "us"}), host)


def connection(server="127.0.0.1", client="127.0.0.1", host="127.0.0.1:3000", origin=""):
    headers = [(name, value.encode()) for name, value in ((b"host", host), (b"origin", origin)) if value]
    return {"type": "http", "server": (server, 3000), "client": (client, 5000), "headers": headers}


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "localhost", "[::1]:3000", "[::1]", ""])
def test_a_request_of_this_machine_passes(host):
    check_local(connection(host=host))


def test_a_unix_socket_is_this_machine():
    check_local({"type": "http", "server": ("/run/radiolucent.sock", None), "client": None, "headers": []})


@pytest.mark.parametrize(
    "asked",
    [
        connection(server="10.0.0.5"),
        connection(client="10.0.0.9"),  # what a proxy on this machine says in X-Forwarded-For
        connection(host="evil.example:3000"),  # DNS rebinding
        connection(host="127.0.0.1.evil.example"),
    ],
)
def test_any_other_does_not(asked):
    with pytest.raises(NotLocal):
        check_local(asked)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:3000", "http://localhost:3000", "http://[::1]:8080"])
def test_a_page_of_this_machine_may_ask(origin):
    check_local(connection(origin=origin))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1.evil.example", "null", "file://", "http://[::1", "localhost"]
)
def test_a_page_of_another_site_may_only_where_that_is_set(origin):
    with pytest.raises(NotLocal, match="RADIOLUCENT_CORS_ORIGINS"):
        check_local(connection(origin=origin), ("https://viewer.example",))
    check_local(connection(origin="https://viewer.example"), ("https://viewer.example",))
    check_local(connection(origin="https://viewer.example"), ("*",))


def test_the_settings_say_which():
    gate = Gate(AccessSettings(cors_origins=("https://viewer.example",)), b"", Rates(Limits()))
    named, other = (connection(origin=f"https://{name}.example") for name in ("viewer", "evil"))
    for asked in (named, other):
        asked |= {"method": "POST", "path": "/v1/predict"}
    asyncio.run(gate.admit(named, *gate.visit(named, "")))
    with pytest.raises(NotLocal):
        asyncio.run(gate.admit(other, *gate.visit(other, "")))


@pytest.mark.parametrize(
    ("archives", "said"),
    [
        ('{"pacs": {"password": "s3cret"}}', "archives.pacs.url: Field required"),
        ('{"pacs": {"password": "s3cret"', "archives"),
    ],
)
def test_settings_that_cannot_be_used_are_named_and_not_shown(archives, said):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import service.app"],
        cwd=ROOT,
        env=os.environ | {"RADIOLUCENT_ARCHIVES": archives},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_of_settings_hold_no_values(monkeypatch):
    monkeypatch.setenv("RADIOLUCENT_ARCHIVES", '{"pacs": {"password": "s3cret"}}')
    with pytest.raises(ValidationError) as raised:
        Settings()
    assert "s3cret" not in str(raised.value)


WHERE = {"everywhere": ["--host", EVERYWHERE], "nowhere said": []}


@pytest.fixture(scope="module")
def starting() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both at once: each takes seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RADIOLUCENT_")}
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent"]
    begun = {
        name: subprocess.Popen(
            [*command, "--port", str(free_port()), *where],
            cwd=ROOT,
            env=environment | {"BENTOML_DO_NOT_TRACK": "True"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, where in WHERE.items()
    }
    yield begun
    for process in begun.values():
        with process:
            process.kill()


@pytest.mark.server
@pytest.mark.parametrize("where", WHERE)
def test_the_service_refuses_to_start_where_others_could_ask(where, starting):
    """It never listens; without a host BentoML would, at every address."""
    process = starting[where]
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "would listen on 0.0.0.0" in said
    assert "RADIOLUCENT_KEYS" in said
    assert "Traceback" not in said
