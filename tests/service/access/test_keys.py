from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path

import pytest

from service.access.__main__ import main
from service.access.keys import Keys, digest_of, make_key, read_keys, write_keys
from service.errors import AccessError


def run(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out.strip()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_shown_once_and_kept_as_a_digest(file, capsys):
    key = run(capsys, "create", str(file), "--scopes", "predict,metrics", "--id", "pacs", "--note", "ward 3")
    assert re.fullmatch(r"rl_[A-Za-z0-9_-]{43}", key)
    assert key[3:] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    (record,) = read_keys(file)
    assert record.sha256 == digest_of(key)
    assert record.scopes == ("predict", "metrics")
    listed = run(capsys, "list", str(file))
    assert listed.startswith("pacs  predict,metrics")
    assert "ward 3" in listed
    assert record.sha256 not in listed


def test_a_key_that_could_not_be_stored_is_not_shown(file, capsys, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("service.access.keys.write_whole", full)
    assert main(["create", str(file)]) == 2
    told = capsys.readouterr()
    assert "No space left" in told.err
    assert "rl_" not in told.out + told.err


def test_no_two_keys_are_alike(file, capsys):
    assert len({run(capsys, "create", str(file)) for _ in range(20)}) == 20
    assert len({record.id for record in read_keys(file)}) == 20


def test_a_running_service_hears_of_new_and_revoked_keys(file, capsys, clock):
    first = run(capsys, "create", str(file), "--id", "a")
    keys = Keys(file, clock)
    assert keys.find(first).id == "a"
    for wrong in (first + "x", first[:-1], "rl_", "", digest_of(first)):
        assert keys.find(wrong) is None
    second = run(capsys, "create", str(file), "--id", "b")
    run(capsys, "revoke", str(file), "a")
    assert keys.find(second) is None  # it looks once a second
    clock.now += 1.1
    assert keys.find(second).id == "b"
    assert keys.find(first) is None


def test_a_rotated_key_holds_on_for_a_while(file, capsys):
    old = run(capsys, "create", str(file), "--id", "a", "--scopes", "predict", "--note", "n")
    new = run(capsys, "rotate", str(file), "a", "--overlap", "2h")
    keys = Keys(file)
    assert (keys.find(old).id, keys.find(new).id) == ("a", "a.2")
    assert (keys.find(new).scopes, keys.find(new).note) == (("predict",), "n")
    left = keys.find(old).expires - datetime.now(UTC)
    assert timedelta(hours=1, minutes=58) < left <= timedelta(hours=2)
    third = run(capsys, "rotate", str(file), "a.2")
    assert Keys(file).find(third).id == "a.3"
    assert {Keys(file).find(key).held_by for key in (old, new, third)} == {"a"}


def test_a_revoked_keys_name_is_not_given_away_while_its_successor_holds_its_jobs(file, capsys):
    run(capsys, "create", str(file), "--id", "a")
    run(capsys, "rotate", str(file), "a")
    run(capsys, "revoke", str(file), "a")
    assert main(["create", str(file), "--id", "a"]) == 2


def test_a_key_that_has_ended_opens_nothing(file):
    key, record = make_key("a", ("predict",), datetime.now(UTC) - timedelta(seconds=1), "")
    write_keys(file, (record,))
    assert Keys(file).find(key) is None


def test_a_file_that_is_broken_later_changes_nothing_and_one_that_is_gone_opens_nothing(file, capsys, clock, caplog):
    key = run(capsys, "create", str(file))
    keys = Keys(file, clock)
    file.write_text("{")
    clock.now += 2
    assert keys.find(key) is not None
    assert "from before" in caplog.text
    file.unlink()
    clock.now += 2
    assert keys.find(key) is None
    assert "gone" in caplog.text


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"keys": [{"id": "a"}]}', '{"keys": [], "more": 1}', '{"keys": [{"id": "a", "sha256": "secret!"}]}'],
)
def test_a_file_that_is_none_is_refused_without_being_quoted(file, content):
    file.write_text(content)
    with pytest.raises(AccessError) as refused:
        Keys(file)
    assert "secret!" not in str(refused.value)


def test_a_file_that_everybody_may_write_is_refused(file, capsys):
    run(capsys, "create", str(file))
    file.chmod(0o666)
    with pytest.raises(AccessError, match="chmod"):
        Keys(file)


def test_two_keys_of_one_name_are_refused(file, capsys):
    run(capsys, "create", str(file), "--id", "a")
    assert main(["create", str(file), "--id", "a"]) == 2
    _, record = make_key("a", ("predict",), None, "")
    write_keys(file, (*read_keys(file), record))
    with pytest.raises(AccessError, match="same id"):
        Keys(file)


@pytest.mark.parametrize("arguments", [("revoke", "b"), ("rotate", "b"), ("create", "--id", "../x")])
def test_what_cannot_be_done_is_said_and_changes_nothing(file, capsys, arguments):
    run(capsys, "create", str(file), "--id", "a")
    before = file.read_bytes()
    command, *more = arguments
    assert main([command, str(file), *more]) == 2
    assert capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize("arguments", [("--scopes", "root"), ("--expires", "soon"), ("--expires", "0d")])
def test_wrong_arguments_are_refused(file, arguments):
    with pytest.raises(SystemExit):
        main(["create", str(file), *arguments])
    assert not file.exists()
