from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from serving import Service

from service.reader_study.__main__ import main
from service.reader_study.opinion import ITEMS
from tests.processes import free_port

from .conftest import write_folder


@pytest.fixture
def settings(tmp_path, monkeypatch, write_bundle):
    values = {
        "RADIOLUCENT_MODELS": str(write_bundle("bright").parent),
        "RADIOLUCENT_READER_STUDIES": f"sqlite:///{tmp_path / 'studies.sqlite'}",
        "RADIOLUCENT_DEVICE": "cpu",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def create(folder: Path, *more: str) -> list[str]:
    return ["create", str(folder), "--model", "bright", "--readers", "2", "--seed", "3", *more]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RADIOLUCENT_READER_STUDIES", "nonsense", "the URL of a database is none"),
        ("RADIOLUCENT_READER_STUDIES", "sqlite:////proc/none/studies.sqlite", "cannot be used"),
        ("RADIOLUCENT_WORKERS", "many", "workers"),
        ("RADIOLUCENT_ARCHIVES", "{", "archives"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(name, value, reason, settings, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert main(["progress"]) == 2
    complained = capsys.readouterr().err
    assert reason in complained
    assert complained.count("\n") == 1


def test_the_next_command_can_be_pasted_where_the_folder_has_spaces(tmp_path, settings, capsys):
    assert main(["example", str(tmp_path / "a pilot")]) == 0
    assert f"create '{tmp_path / 'a pilot'}'" in capsys.readouterr().out


def test_from_a_folder_to_an_export(tmp_path, settings, capsys):
    folder = write_folder(tmp_path / "pilot")
    assert main(create(folder)) == 0
    made = capsys.readouterr().out
    assert re.search(r"^pilot: 6 cases, 2 readers, crossover, seed 3$", made, re.M)
    assert len(re.findall(r"^  R0[12]  http://127\.0\.0\.1:3000/study#(?:\w{5}-){5}\w{5}$", made, re.M)) == 2
    assert main(create(folder)) == 0
    assert "made before" in capsys.readouterr().out
    assert main(["progress"]) == 0
    shown = capsys.readouterr().out
    assert "pilot" in shown
    assert "not begun" in shown
    assert main(["renew", "pilot", "R02", "--address", "https://studies.example/"]) == 0
    assert "R02  https://studies.example/study#" in capsys.readouterr().out
    assert main(["export", "pilot", str(tmp_path / "out")]) == 0
    assert "0 readings written" in capsys.readouterr().out
    assert main(["delete", "pilot", "--yes"]) == 0
    assert main(["progress", "pilot"]) == 2


def test_a_study_that_was_not_finished_says_so(tmp_path, settings, capsys):
    folder = write_folder(tmp_path / "pilot")
    case = folder / "john-doe-4.png"
    content = case.read_bytes()
    case.write_bytes(content[:100])
    assert main(create(folder)) == 2
    assert main(["progress"]) == 0
    assert "pilot: not open, 4 cases so far" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--name", "a/b"], "name"),
        (["--model", "nobody"], "no such model"),
        (["--method", "magic"], "method"),
        (["--readers", "anna", "anna"], "readers: Value error, names repeat"),
        (["--readers", "Dr. Miller"], "readers.0"),
        (["--readers", "0"], "readers"),
        (["--washout-days", "-1"], "washout_days"),
        (["--cases", "/nowhere.csv"], "/nowhere.csv"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(tmp_path, settings, capsys, more, says):
    assert main(create(write_folder(tmp_path / "pilot"), *more)) == 2
    assert says in capsys.readouterr().err
    assert main(["progress", "pilot"]) == 2


def test_the_example_is_a_study_that_can_be_made(tmp_path, settings, capsys):
    folder = tmp_path / "drawn"
    assert main(["example", str(folder)]) == 0
    table = (folder / "cases.csv").read_text()
    for theirs, ours in {"glioma": "bright", "meningioma": "middle", "pituitary": "middle", "no_tumor": "dark"}.items():
        table = table.replace(theirs, ours)
    (folder / "cases.csv").write_text(table)
    assert main(create(folder)) == 0
    assert "drawn: 10 cases" in capsys.readouterr().out
    assert main(["example", str(folder)]) == 2


@pytest.mark.server
def test_a_service_killed_in_the_middle_of_a_reading_loses_nothing(tmp_path, settings, capsys):
    folder = write_folder(tmp_path / "pilot")
    assert main(create(folder)) == 0
    code = re.search(r"R01 .*#(\S+)", capsys.readouterr().out)[1]
    bearer = {"Authorization": f"Bearer {code}"}
    log = tmp_path / "log.txt"
    service = Service(free_port(), log)
    client = service.start()
    try:
        first = client.post("/v1/reading/next", headers=bearer).json()["case"]
        ratings = dict.fromkeys(ITEMS, 2) if first["arm"] == "with" else {}
        said = {"diagnosis": "dark", "confidence": 9, "ratings": ratings, "comment": "one"}
        assert client.post(f"/v1/reading/cases/{first['id']}/answer", headers=bearer, json=said).status_code == 200
        second = client.post("/v1/reading/next", headers=bearer).json()["case"]
        draft = {"diagnosis": "bright", "comment": "half a thought", "active_seconds": 1.5, "revision": 7}
        path = f"/v1/reading/cases/{second['id']}"
        assert client.put(f"{path}/draft", headers=bearer, json=draft).json() == {"revision": 7}
    finally:
        service.stop(signal.SIGKILL)
    client = service.start()
    try:
        session = client.post("/v1/reading/next", headers=bearer).json()
        assert (session["done"], session["case"]["id"]) == (1, second["id"])
        assert session["case"]["revision"] == 7
        kept = {"diagnosis": "bright", "confidence": None, "ratings": {}, "comment": "half a thought"}
        assert session["case"]["draft"] == kept | {"active_seconds": 1.5}
        # The answer whose receipt was lost is sent again.
        again = client.post(f"/v1/reading/cases/{first['id']}/answer", headers=bearer, json=said)
        assert again.status_code == 200
    finally:
        service.stop()
    text = log.read_text()
    assert not [secret for secret in (code, "half a thought", "john-doe", second["id"]) if secret in text]
    assert os.path.getsize(tmp_path / "studies.sqlite") > 0
