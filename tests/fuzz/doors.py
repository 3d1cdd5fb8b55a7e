"""The HTTP doors under fuzz: mutated files, in envelopes that are whole or damaged, posted to the application."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import tempfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

from starlette.testclient import TestClient

from service.api import make_api, set_up_jobs
from service.dicomweb.archives import Archive
from service.dicomweb.multipart import write_multipart
from service.observability import logger
from service.pipeline import Pipeline
from service.settings import Settings
from tests.bright import write_bundle_into
from tests.fuzz.reading import names_in
from tests.fuzz.seeds import synthetic

DOORS = ("multipart", "zip", "queue", "predict", "explain")
_RULES = '[[rule]]\nname = "all"\nmodel = "bright"\nmodality = "MR"\n'
_DAMAGED = 0.4  # share of envelopes
_PLAIN = (
    "application/json",
    "*/*",
    "text/html",
    'multipart/related; type="application/dicom"',
    "application/dicom+json",
)
_ENTRIES = ("a.dcm", "../../a.dcm", "/etc/a.dcm", "folder/", "ä\x00b", "DICOMDIR", "a" * 300)
Envelope = tuple[bytes, str]  # body and content type


_log: list[str] = []


class _Log(logging.Handler):
    """Keeps every line that the service writes."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.append(self.format(record))


@cache
def client() -> TestClient:
    """The application with one small model, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="radiolucent-fuzz-"))
    (folder / "rules.toml").write_text(_RULES)
    settings = Settings(
        models=write_bundle_into(folder / "models", "bright").parent,
        threads=1,
        device="cpu",
        rules=folder / "rules.toml",
        jobs_database=f"sqlite:///{folder / 'jobs.sqlite'}",
        study_folder=folder / "studies",
        site_key=folder / "site.key",
        archives={"pacs": Archive(url="http://127.0.0.1:9/dicom-web")},
    )
    application = make_api("fuzz")
    application.state.pipeline = Pipeline(settings)
    set_up_jobs(application, settings)
    logger.addHandler(_Log())
    return TestClient(application, raise_server_exceptions=False)


def post(content: bytes) -> str:
    """Post a file through one of the doors; which, and how the envelope is damaged, follows from the file.

    Returns:
        Door and status.

    Raises:
        AssertionError: the answer is none that a client may get.
    """
    chance = random.Random(hashlib.sha256(content).digest())
    door = chance.choice(DOORS)
    names = names_in(content)
    _log.clear()
    body, kind = _wrapped(door, content, chance)
    accept = chance.choice(_PLAIN)
    path = {"queue": "/v1/studies?store=pacs", "predict": "/v1/predict", "explain": "/v1/explain"}
    answer = client().post(
        path.get(door, "/v1/studies"), content=body, headers={"content-type": kind, "accept": accept}
    )
    assert answer.status_code < 500, (
        f"{door} {accept}: {answer.status_code} {answer.text[:500]} {[line[-700:] for line in _log[-3:]]}"
    )
    if answer.status_code >= 400:
        _check_problem(answer.headers["content-type"], answer.content)
    if "dicom" not in answer.headers["content-type"]:
        assert not [name for name in names if name in answer.text], "the answer quotes the patient's name"
    assert not [name for name in names for line in _log if name in line], "the log quotes the patient's name"
    if answer.status_code == 202:
        assert client().delete(answer.headers["location"]).status_code == 204
    return f"{door} {answer.status_code}"


def _check_problem(kind: str, body: bytes) -> None:
    problem = json.loads(body)
    assert kind == "application/problem+json"
    assert {"type", "title", "status", "detail", "request_id"} <= set(problem), problem


def _wrapped(door: str, content: bytes, chance: random.Random) -> Envelope:
    body, kind = {"zip": _zipped, "predict": _form, "explain": _form}.get(door, _related)(content, chance)
    if chance.random() < _DAMAGED:
        body, kind = chance.choice((_cut, _flipped, _repeated, _misnamed))(body, kind, chance)
    return body, kind


def _related(content: bytes, chance: random.Random) -> Envelope:
    kind, body = write_multipart([content, *synthetic()[: chance.randrange(3)]])
    return b"".join(body), kind


def _zipped(content: bytes, chance: random.Random) -> Envelope:
    buffer = BytesIO()
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for number, each in enumerate([content, *synthetic()[: chance.randrange(3)]]):
            archive.writestr(f"{number}{chance.choice(_ENTRIES)}" if number else chance.choice(_ENTRIES), each)
    return buffer.getvalue(), "application/zip"


def _form(content: bytes, chance: random.Random) -> Envelope:
    mark = b"mark"
    fields = {"model": "bright", "overlay": chance.choice(("true", "false", "?")), "target": chance.choice(("all", ""))}
    parts = [f'Content-Disposition: form-data; name="{k}"\r\n\r\n{v}'.encode() for k, v in fields.items()]
    head = b'Content-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    parts += [head + each for each in (content, *synthetic()[: chance.randrange(2)])]
    body = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + mark + b"--\r\n"
    return body, "multipart/form-data; boundary=mark"


def _cut(body: bytes, kind: str, chance: random.Random) -> Envelope:
    return body[: chance.randrange(len(body) + 1)], kind


def _flipped(body: bytes, kind: str, chance: random.Random) -> Envelope:
    """Some bytes changed, near the ends, where envelopes have their structure."""
    changed = bytearray(body)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(min(200, len(changed)))
        changed[chance.choice((place, len(changed) - 1 - place))] = chance.randrange(256)
    return bytes(changed), kind


def _repeated(body: bytes, kind: str, chance: random.Random) -> Envelope:
    start = chance.randrange(len(body))
    return body[:start] + body[start : start + chance.randrange(1, 500)] * chance.randint(2, 5) + body[start:], kind


def _misnamed(body: bytes, kind: str, chance: random.Random) -> Envelope:
    """Another content type than the body's."""
    others = ("application/zip", "text/plain", "", "multipart/related", "multipart/form-data; boundary=", kind + "x")
    return body, chance.choice((*others, re.sub("=.*", '="', kind)))
