"""What an archive says it did with each instance (PS3.18 10.5.3; reasons in annex I.2.2 and PS3.7 annex C)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

from service.errors import RemoteRefused, RemoteUnavailable

_STORED, _FAILED = "00081199", "00081198"  # Referenced SOP Sequence, Failed SOP Sequence
_INSTANCE, _REASON = "00081155", "00081197"  # Referenced SOP Instance UID, Failure Reason
_DUPLICATE = 0x0111
_PASSING = (0x0110, *range(0xA700, 0xA800))  # processing failure, out of resources


def check_stored(status: int, body: bytes, contents: Iterable[bytes]) -> None:
    """Return where every instance is in the archive, be it from an earlier time.

    Args:
        status: 200 (all), 202 (some) or 409 (none, or some).
        body: DICOM JSON. With 200 it may be missing: the status says that all are stored.
        contents: the files that were sent.

    Raises:
        RemoteRefused: one is refused for good.
        RemoteUnavailable: one was not stored and may be later, or it is not said which.
    """
    answer = _parse(body)
    if answer is None:
        if status == 200:
            return
        raise RemoteUnavailable(f"the archive answers with HTTP status {status} and does not say what it stored")
    failed = dict(_failures(answer))
    if any(reason not in (_DUPLICATE, *_PASSING) for reason in failed.values()):
        reasons = ", ".join(sorted({f"{reason:04X}H" for reason in failed.values()}))
        raise RemoteRefused(f"the archive refuses {len(failed)} instances, reasons {reasons}")
    there = {_uid(item) for item in _items(answer, _STORED)}
    there |= {uid for uid, reason in failed.items() if reason == _DUPLICATE}
    missing = [uid for uid in map(_sop_instance, contents) if uid not in there]
    if missing:
        raise RemoteUnavailable(f"the archive did not store {len(missing)} instances")


def _parse(body: bytes) -> Mapping[str, Any] | None:
    """The data set; None where the body is none in JSON. Some archives put it into a list."""
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        return None
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict) or not (_STORED in parsed or _FAILED in parsed):
        return None
    return parsed


def _items(answer: Mapping[str, Any], sequence: str) -> list[Mapping[str, Any]]:
    found: Any = answer.get(sequence)
    values: Any = found.get("Value") if isinstance(found, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _failures(answer: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """UIDs and reasons; without a reason it is a processing failure (0110H)."""
    for item in _items(answer, _FAILED):
        reason = _first(item, _REASON)
        yield _uid(item), reason if isinstance(reason, int) else 0x0110


def _uid(item: Mapping[str, Any]) -> str:
    return str(_first(item, _INSTANCE))


def _first(item: Mapping[str, Any], tag: str) -> Any:  # noqa: ANN401 - a value of JSON
    found: Any = item.get(tag)
    values: Any = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _sop_instance(content: bytes) -> str:
    from pydicom import dcmread

    return str(dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
