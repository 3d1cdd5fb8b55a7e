"""The audit log: who asked what when, of which files and which model, and how it ended; one JSON object a line.

Files are named by their SHA-256, people by a keyed hash. There are no file names, no addresses, no answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import Request

from service.access.scopes import Scope
from service.observability import ERRORS, logger


@dataclass(slots=True)
class Visit:
    """A request on its way through the service.

    Attributes:
        request_id: of the answer.
        method: of HTTP.
        route: from the table of routes, without what stands in its place for names.
        caller: `key:ID`, `token:` and a keyed hash of its subject, or empty.
        holder: whose jobs are the caller's; as `caller`, with the id of the first key where it was rotated.
        scopes: what the caller may.
        counted: whether the caller's rates know of it.
        keep: whether digests are wanted.
        files: SHA-256 of each file that was sent, in order.
        models: ids and versions of the bundles that were asked.
        status: of the answer; 499 where the client did not wait.
    """

    request_id: str
    method: str
    route: str
    caller: str = ""
    holder: str = ""
    scopes: frozenset[Scope] = frozenset()
    counted: bool = False
    keep: bool = False
    files: list[str] = field(default_factory=list[str])
    models: list[str] = field(default_factory=list[str])
    status: int = 499


def note_file(request: Request, content: bytes) -> None:
    """Say that a request brought this file, where anybody wants to know."""
    visit = visit_of(request)
    if visit is not None and visit.keep:
        visit.files.append(hashlib.sha256(content).hexdigest())


def note_model(request: Request, model: str, version: str) -> None:
    """Say which model a request asked."""
    visit = visit_of(request)
    if visit is not None and (asked := f"{model} {version}") not in visit.models:
        visit.models.append(asked)


def visit_of(request: Request) -> Visit | None:
    """What is known of a request; None where nothing stands before the application that would know."""
    return getattr(request.state, "visit", None)


class AuditLog:
    """Appends to a file that only this user may read, one write a line, from any number of processes.

    A file that was moved away is made anew at its place, so that the host may rotate it.

    Args:
        file: the log.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = self._open()

    def write(self, visit: Visit) -> None:
        """Add a line. What cannot be written is counted (`radiolucent_errors_total{kind="audit"}`) and logged."""
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": visit.request_id,
            "who": visit.caller,
            "method": visit.method,
            "route": visit.route,
            "files": visit.files,
            "models": visit.models,
            "status": visit.status,
        }
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            self._follow()
            os.write(self._descriptor, line)
        except OSError as error:
            ERRORS.labels("audit").inc()
            logger.error("the audit log cannot be written: %s", error.strerror)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _follow(self) -> None:
        """Open the file at the path, should it be another one by now."""
        here = os.fstat(self._descriptor)
        try:
            there = os.stat(self._file)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            opened = self._open()
            os.close(self._descriptor)
            self._descriptor = opened
