"""What operators are told where the service cannot start: why, in a line; and nothing is left that seems to run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import SettingsError
from serving import ROOT
from sqlalchemy import MetaData, Table

from service.commands import reason_of
from service.database import connect, make_tables
from service.errors import AccessError, DatabaseUnusable
from service.starting import check_port
from tests.processes import free_port

SECRET = "s3cret"  # noqa: S105 - nobody's
TABLES = MetaData()
Table("jobs", TABLES)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_named(taken):
    with pytest.raises(OSError, match="in use") as raised:
        check_port("127.0.0.1", taken)
    assert reason_of(raised.value) == f"127.0.0.1:{taken}: Address already in use"


@pytest.mark.parametrize("host", ["127.0.0.1", "::", "localhost"])
def test_any_port_is_free_and_names_are_left_to_the_server(host):
    check_port(host, 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AccessError("nobody may"), "nobody may"),
        (SettingsError("a field"), "a field"),
        (FileNotFoundError(2, "No such file or directory", "keys.json"), "keys.json: No such file or directory"),
        (TimeoutError(), "TimeoutError"),
        (ZeroDivisionError(), None),
    ],
)
def test_a_reason_is_a_line_and_a_fault_of_ours_has_none(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql+nodriver://u:{SECRET}@db/x", "SQLAlchemy"),
        (f"//{SECRET}", "SQLAlchemy"),
        (f"oracle://u:{SECRET}@db/x", "oracle://u:\\*\\*\\*@db/x needs the package oracledb"),
        (f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/x", "u:\\*\\*\\*@127.0.0.1:1/x cannot be used: .*refused"),
        ("sqlite:////nowhere/x.sqlite", "sqlite:////nowhere/x.sqlite cannot be used: unable to open"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url, said):
    with pytest.raises(DatabaseUnusable, match=said) as raised:
        make_tables(connect(url, "x.sqlite"), TABLES)
    assert SECRET not in str(raised.value)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Status and words of servers that cannot start, all at once: each takes seconds."""
    folder = tmp_path_factory.mktemp("starting")
    keys = folder / "keys.json"
    keys.write_text(f'{{"keys": [{{"id": "{SECRET}"}}]}}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        door = f'{{"enabled": true, "callers": ["MODALITY"], "port": {port}, "target": "pacs"}}'
        broken = {
            "keys": (free_port(), {"RADIOLUCENT_KEYS": str(keys), "RADIOLUCENT_WORKERS": "2"}),
            "door": (
                free_port(),
                {"RADIOLUCENT_SCP": door, "RADIOLUCENT_ARCHIVES": '{"pacs": {"url": "http://pacs"}}'},
            ),
            "port": (port, {}),
        }
        begun = {name: serve(folder / name, *how) for name, how in broken.items()}
        found = {name: (process.wait(120), (folder / name).read_text()) for name, process in begun.items()}
    found["door"] = (found["door"][0], found["door"][1].replace(str(port), "PORT"))
    found["port"] = (found["port"][0], found["port"][1].replace(str(port), "PORT"))
    return found


def serve(log: Path, port: int, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_DO_NOT_TRACK": "True", "XDG_STATE_HOME": str(log.parent)} | settings,
            stdout=file,
            stderr=file,
        )


@pytest.mark.server
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("keys", "the file of keys cannot be used: keys.0.sha256: Field required"),
        ("door", "127.0.0.1:PORT: Address already in use"),
        ("port", "127.0.0.1:PORT: Address already in use"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_ends(what, reason, ended):
    status, said = ended[what]
    assert status == 1, said
    assert f"Radiolucent does not start: {reason}" in said
    assert "Traceback" not in said
    assert SECRET not in said
