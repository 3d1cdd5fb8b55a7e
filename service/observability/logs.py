"""Logs that cannot hold patient data, one line an event, as text or JSON.

Our own messages hold ids, counts, durations and error kinds. Whatever else logs in this process is written by people
who do not know what a file may hold: pydicom's warnings quote values, an exception's text what it could not read. So
of other libraries' records only the place is kept, and of every exception its classes and places.
"""

from __future__ import annotations

import hmac
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from service.observability.current import current

logger = logging.getLogger("radiolucent")

# Whose messages are written as they are: ours, and the server's about itself.
_OWN = ("radiolucent", "bentoml.serve", "circus", "uvicorn.error")
_SERVERS = ("", "bentoml", "circus", "uvicorn", "uvicorn.error", "uvicorn.access")


def hashed_uid(uid: str, key: bytes) -> str:
    """What logs may hold of a UID: 12 hexadecimal digits of its HMAC-SHA256 with the site's secret key.

    The same UID gives the same digits at the same site; without the key nobody can try UIDs until one fits.
    """
    return hmac.digest(key, uid.encode(), "sha256").hex()[:12]


def set_up_logs(form: Literal["text", "json"]) -> None:
    """Let everything that logs in this process write to standard output, a line each; instead of what was set up.

    Ours from INFO on, all others' from WARNING on. Python's own warnings go the same way.
    """
    for name in _SERVERS:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.setLevel(logging.NOTSET if name else logging.WARNING)
        other.propagate = True
    logging.getLogger("bentoml.serve").setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True  # it quotes paths and queries; ours is in `requests`
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.getLogger().addHandler(handler)
    warnings.showwarning = _log_warning


class TextLines(logging.Formatter):
    """`time level logger [request] message`, and below it the places that an exception went through."""

    def format(self, record: logging.LogRecord) -> str:
        """Of one record."""
        request = current()
        about = f" [{request.request_id}]" if request else ""
        line = f"{_time(record)} {record.levelname} {record.name}{about} {_message(record)}"
        return "\n    ".join([line.replace("\n", "\n    "), *_places(record)])


class JsonLines(logging.Formatter):
    """One JSON object a line; `fields` of a record are members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Of one record."""
        request = current()
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if request is not None:
            line["request_id"] = request.request_id
            if request.span is not None:
                line["trace_id"] = request.trace_id
        line |= getattr(record, "fields", {})
        if places := list(_places(record)):
            line["exception"] = places
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith(_OWN):
        return record.getMessage()
    return f"a message of {record.module}, line {record.lineno}; left out, because it may quote what it was given"


def _places(record: logging.LogRecord) -> Iterator[str]:
    error = record.exc_info[1] if record.exc_info else None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield type(error).__qualname__
        for frame in traceback.extract_tb(error.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} {frame.name}"
        error = error.__cause__ or error.__context__


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """A warning's class and place, without its text."""
    logger.warning("%s at %s:%d", category.__name__, filename, lineno)
