"""What stands around the routes: who may ask, a limit for every request, and one error body for all that goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from http import HTTPStatus
from math import ceil

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.gate import Gate
from service.errors import InvalidParameter, RadiolucentError, TooLarge, TooManyRequests
from service.forms import PROBLEM
from service.observability import ERRORS, logger
from service.schemas import Problem, Readiness

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
_BROWSER = {"WWW-Authenticate": 'Basic realm="Radiolucent: a key as the password", charset="UTF-8"'}
# On every answer that does not say otherwise itself. It is data, to be shown by nobody else and kept by no cache.
_SAFE = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
_ONLY_TLS = {b"strict-transport-security": b"max-age=31536000"}


def _problem(error: RadiolucentError, request_id: str, *, browsable: bool = False) -> Response:
    ERRORS.labels(error.kind).inc()
    headers = _BROWSER if browsable and error.status == 401 else _HEADERS.get(error.status, {})
    if isinstance(error, TooManyRequests):
        headers = {"Retry-After": str(ceil(error.retry_after))}
    body = Problem.of(error, request_id).model_dump_json()
    return Response(body, status_code=error.status, media_type=PROBLEM, headers=headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    """Names the fields and what is wrong with them, never what they held."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    fields = "; ".join(f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors())
    return _problem(InvalidParameter(fields), request.state.request_id)


async def on_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    return _http_problem(error, request.state.request_id)


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


class _Exchange:
    """One request's channels: counts what comes in, notes when the answer has begun."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._received = 0
        self.answered = False

    def _check(self) -> None:
        if self._received > self._limit:
            raise TooLarge(f"a request may hold at most {self._limit // 2**20} MiB")

    async def receive(self) -> Message:
        """ASGI; raises TooLarge past the limit in bytes."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._check()
        return message

    async def send(self, message: Message) -> None:
        """ASGI; raises TooLarge once more, because FastAPI turns what parsing a body raises into its own answer."""
        self._check()
        self.answered = True
        await self._send(message)


class Guard:
    """Gives every request an id, bounds its body, and turns what escapes the routes into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id: str = scope.setdefault("state", {}).setdefault("request_id", uuid.uuid4().hex)
        exchange = _Exchange(receive, send, scope["app"].state.pipeline.settings.max_request_mib * 2**20)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except RadiolucentError as error:
            await _problem(error, request_id)(scope, receive, send)
        except Exception:
            logger.exception("request %s failed", request_id)
            if exchange.answered:
                raise
            fault = RadiolucentError("the fault is ours; the log has more under this request id")
            await _problem(fault, request_id)(scope, receive, send)


class Edge:
    """Around everything, BentoML's own routes too: who may ask, the page, readiness, problems instead of plain text.

    /readyz answers 503 where no bundle is served, else 200, with the refused ones by name. `api.state.gate` must be set
    before the first request (`Gate`).
    """

    def __init__(self, app: ASGIApp, api: FastAPI) -> None:
        self.app = app
        self.api = api
        self._shared: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._shared is None:
            self._shared = self._with_cors(self.api.state.gate)
        await self._shared(scope, receive, send)

    def _with_cors(self, gate: Gate) -> ASGIApp:
        """What asks who they are, and around it what tells browsers that no other site's pages may ask, or which."""
        if not gate.origins:
            return self._guarded
        headers = ["Authorization", "Content-Type", "X-Request-ID"]
        methods = ["GET", "POST", "PUT", "DELETE"]
        return CORSMiddleware(self._guarded, allow_origins=gate.origins, allow_methods=methods, allow_headers=headers)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate: Gate = self.api.state.gate
        request_id: str = scope.setdefault("state", {}).setdefault("request_id", uuid.uuid4().hex)
        visit, route = gate.visit(scope, request_id)
        scope["state"]["visit"] = visit

        def told(status: int) -> None:
            visit.status = status

        send = _safe(send, told, tls=scope.get("scheme") == "https")
        try:
            await gate.admit(scope, visit, route)
        except RadiolucentError as error:
            await _problem(error, request_id, browsable=route.browsable)(scope, receive, send)
        else:
            await self._answer(scope, receive, send)
        finally:
            gate.leave(visit)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/readyz":
            registry = self.api.state.pipeline.registry
            ready = Readiness(ready=bool(registry.names), models=registry.names, refused=registry.refused)
            status = 200 if ready.ready else 503
            await Response(ready.model_dump_json(), status, media_type="application/json")(scope, receive, send)
        elif scope["path"] == "/":  # BentoML's own page there asks other hosts for scripts
            await self.api(scope, receive, send)
        else:
            await self.app(scope, receive, _with_problems(scope, receive, send))


def _safe(send: Send, told: Callable[[int], None], *, tls: bool) -> Send:
    """A `send` that adds the headers every answer has, and tells the status."""
    wanted = _SAFE | _ONLY_TLS if tls else _SAFE

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            told(message["status"])
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in wanted.items() if name not in present]
            message = {**message, "headers": headers}
        await send(message)

    return sending


def _with_problems(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that answers with a problem where the wrapped application refuses in plain text."""
    replaced = False

    async def replacing(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start" and message["status"] in (404, 405):
            plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
            if plain:
                replaced = True
                refusal = HTTPException(message["status"])
                await _http_problem(refusal, scope["state"]["request_id"])(scope, receive, send)
        if not replaced:
            await send(message)

    return replacing
