"""Requests ready to be sent: encoding them is no part of what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from requests import Request

from loadtests.payloads import Upload, dicom_uploads, mr_series, uploads
from service.dicomweb.multipart import write_multipart


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body and its content type."""

    content: bytes
    kind: str


def form(fields: Mapping[str, str], files: Sequence[Upload]) -> Body:
    """The multipart form of an image request."""
    request = Request("POST", "http://localhost", data=dict(fields), files=[file.part() for file in files]).prepare()
    assert isinstance(request.body, bytes)  # noqa: S101 - of a form with files
    return Body(request.body, str(request.headers["Content-Type"]))


@cache
def study(slices: int) -> Body:
    """The body of POST /v1/studies: one series of so many slices, at most `payloads.MOST_SLICES`."""
    kind, pieces = write_multipart(mr_series()[:slices])
    return Body(b"".join(pieces), kind)


@cache
def image_body(
    model: str, modality: str, form_of: str, first: int, count: int, extra: tuple[tuple[str, str], ...]
) -> Body:
    """A form of so many images, from number `first` on."""
    files = dicom_uploads()[modality] if form_of == "dicom" and modality in dicom_uploads() else uploads()[modality]
    chosen = [files[(first + number) % len(files)] for number in range(count)]
    return form({"model": model, **dict(extra)}, chosen)


@cache
def bad_requests(model: str, method: str, good: Upload) -> tuple[tuple[str, Body, tuple[int, str]], ...]:
    """Path, body, and the status and kind of problem that it must be refused with."""
    whole = study(2)
    asked = {
        (404, "unknown-model"): {"model": "no-such-model"},
        (422, "unknown-method"): {"model": model, "method": "no-such-method"},
        (422, "unknown-target"): {"model": model, "method": method, "target": "no-such-class"},
        (422, "invalid-parameter"): {"model": model, "deadline_ms": "soon"},
    }
    broken = Body(whole.content[: len(whole.content) // 2], whole.kind)
    return (
        *(("/v1/explain", form(fields, (good,)), problem) for problem, fields in asked.items()),
        ("/v1/studies", broken, (400, "broken-upload")),
    )
