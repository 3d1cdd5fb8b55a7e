"""One error body for all that goes wrong: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service.database import is_storage_full
from service.errors import InvalidParameter, Overloaded, RadiolucentError, StorageFull, TooManyRequests
from service.observability import ERRORS
from service.schemas import Problem

PROBLEM = "application/problem+json"
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    408: {"Connection": "close"},
    413: {"Connection": "close"},
    415: {"Accept-Encoding": "identity"},
    504: {"Connection": "close"},
    503: {"Retry-After": "30"},
    507: {"Retry-After": "60"},
}
_MOST_NAMED, _LONGEST_NAME = 16, 64  # fields, and characters of each: names that we do not know are the caller's
_BROWSER = {"WWW-Authenticate": 'Basic realm="Radiolucent: a key as the password", charset="UTF-8"'}


def problem(title: str) -> dict[str, object]:
    """A problem, as a route declares it; with `model` FastAPI would promise application/json."""
    return {"description": title, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


PROBLEMS: dict[int | str, dict[str, object]] = {
    status: problem(title)
    for status, title in {
        400: "The request cannot be understood",
        404: "No such model",
        408: "The body stands still",
        413: "Too many or too large files",
        415: "The body is compressed",
        422: "A parameter is not valid",
        500: "Our fault; the log has the same request id",
        503: "Too much is waiting",
        504: "The answer would come after the deadline",
        507: "No room to store this",
    }.items()
}


def problem_of(error: RadiolucentError, request_id: str, *, browsable: bool = False) -> Response:
    """The answer for an error of ours, which it counts.

    Args:
        error: of the tree.
        request_id: that the log has, too.
        browsable: a person may have opened this in a browser, which shall ask for a key.
    """
    ERRORS.labels(error.kind).inc()
    headers = _BROWSER if browsable and error.status == 401 else _HEADERS.get(error.status, {})
    if isinstance(error, Overloaded | TooManyRequests):
        headers = {"Retry-After": str(max(1, ceil(error.retry_after)))}
    body = Problem.of(error, request_id).model_dump_json()
    return Response(body, status_code=error.status, media_type=PROBLEM, headers=headers)


def storage_full() -> StorageFull:
    """For a disk without room, whatever told of it."""
    return StorageFull("nothing of the request was stored; try again later")


async def on_invalid(request: Request, error: Exception) -> Response:
    """Names the fields and what is wrong with them, never what they held."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    errors = error.errors()
    named = [
        f"{'.'.join(str(part)[:_LONGEST_NAME] for part in e['loc'][1:])}: {e['msg']}" for e in errors[:_MOST_NAMED]
    ]
    if len(errors) > _MOST_NAMED:
        named.append(f"and {len(errors) - _MOST_NAMED} more")
    return problem_of(InvalidParameter("; ".join(named)), request.state.request_id)


async def on_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals; a body that found no room on the disk is one as well."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    if error.__cause__ is not None and is_storage_full(error.__cause__):
        return problem_of(storage_full(), request.state.request_id)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error = HTTPException(error.status_code, error.detail, {"Allow": _allowed(request)})
    return _http_problem(error, request.state.request_id)


def only_get(request_id: str) -> Response:
    """The answer to another method of what can be read alone."""
    refusal = HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})
    return _http_problem(refusal, request_id)


def _allowed(request: Request) -> str:
    """All methods of a path; Starlette names those of its first route."""
    routes = [one for one in request.app.routes if isinstance(one, Route)]
    methods = {method for one in routes if one.path_regex.match(request.url.path) for method in one.methods or ()}
    return ", ".join(sorted(methods))


def _http_problem(error: HTTPException, request_id: str) -> Response:
    """Starlette's own refusals (no such route, method not allowed, a broken multipart body) as problems."""
    ERRORS.labels("http").inc()
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=str(error.detail),
        request_id=request_id,
    )
    return Response(problem.model_dump_json(), status_code=error.status_code, media_type=PROBLEM, headers=error.headers)


def with_problems(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that answers with a problem where the wrapped application refuses in plain text."""
    replaced = False

    async def replacing(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start" and 400 <= message["status"] < 500:
            headers = Headers(raw=message["headers"])
            if headers.get("content-type", "").startswith("text/plain"):
                replaced = True
                kept = {name: headers[name] for name in ("Allow", "Content-Range") if name in headers}
                refusal = HTTPException(message["status"], headers=kept)
                await _http_problem(refusal, scope["state"]["request_id"])(scope, receive, send)
        if not replaced:
            await send(message)

    return replacing
