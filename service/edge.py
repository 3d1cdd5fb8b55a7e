"""What stands around the routes: who may ask, a limit for every request, a problem for what escapes."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.gate import Gate
from service.connections import SLOWEST, while_client_waits
from service.database import is_storage_full
from service.errors import (
    AnswerTooLate,
    CompressedBody,
    RadiolucentError,
    TooLarge,
    UploadTooSlow,
)
from service.forms import DEADLINE_HEADER
from service.observability import logger
from service.observability.requests import PROBES
from service.pipeline import Pipeline
from service.problems import only_get, problem_of, storage_full, with_problems
from service.safe_headers import with_safe_headers
from service.schemas import Readiness

# What pages of other sites may send and see beyond what browsers let them anyway.
_ASKED = ("Authorization", "Content-Type", "X-Request-ID", DEADLINE_HEADER, "traceparent", "tracestate")
_ANSWERED = (
    "Allow",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Labels",
    "X-Notice",
    "X-Request-ID",
    "X-Targets",
)
_OURS = "the fault is ours; the log has more under this request id"
_AT_ONCE = frozenset(("/v1/predict", "/v1/explain", "/v1/segment"))  # refused before the body is read, where it must
_COMPUTED = _AT_ONCE | {"/v1/frames", "/v1/report", "/v1/studies"}  # for the caller alone
_UPLOADS = _COMPUTED | {"/v1/explanations"}
_MAX_JSON = 2**16  # bytes of any other body: it is parsed on the event loop


class _Exchange:
    """One request's channels: bounds what comes in, in bytes and in time; notes when the answer has begun."""

    def __init__(self, receive: Receive, send: Send, limit: int, stall_s: float) -> None:
        self._receive, self._send, self._limit, self._stall_s = receive, send, limit, stall_s
        self._begun = perf_counter()
        self._received = 0
        self._whole = False
        self._refusal: RadiolucentError | None = None
        self.answered = False
        self.patience: asyncio.Timeout | None = None

    async def receive(self) -> Message:
        """ASGI; raises TooLarge past the limit in bytes, UploadTooSlow where the body stands still."""
        message = await self._next()
        self._received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._received > self._limit:
            self._refuse(TooLarge(f"the body of this request may have at most {self._limit} bytes"))
        return message

    async def _next(self) -> Message:
        if self._whole:  # what comes now is the client's leaving
            return await self._receive()
        allowed = self._begun + self._stall_s + self._received / SLOWEST - perf_counter()
        try:
            async with asyncio.timeout(allowed):
                return await self._receive()
        except TimeoutError:
            self._refuse(UploadTooSlow(f"the body stood still, or came slower than {SLOWEST // 1024} KiB/s"))
            raise

    def _refuse(self, error: RadiolucentError) -> None:
        self._refusal = error
        raise error

    async def send(self, message: Message) -> None:
        """ASGI; raises a refusal once more, because FastAPI turns what parsing a body raises into its own answer."""
        if self._refusal is not None:
            raise self._refusal
        self.answered = True
        if self.patience is not None:
            self.patience.reschedule(None)
        await self._send(message)


def _request_id(scope: Scope) -> str:
    """That it has (`service.observability.requests`), or a new one."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = uuid.uuid4().hex
    return state["request_id"]


def _deadline_of(scope: Scope) -> float | None:
    """By `time.perf_counter`, where the caller says how long it waits; what is no number, the route refuses."""
    sent = Headers(scope=scope).get(DEADLINE_HEADER, "")
    return perf_counter() + int(sent) / 1000 if re.fullmatch("[1-9][0-9]{0,7}", sent) else None


class Guard:
    """Gives every request an id, bounds its body and its time, and turns what escapes the routes into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id: str = _request_id(scope)
        pipeline: Pipeline = scope["app"].state.pipeline
        scope["state"]["deadline"] = deadline = _deadline_of(scope)
        settings = pipeline.settings
        limit = settings.max_request_mib * 2**20 if scope["path"] in _UPLOADS else _MAX_JSON
        exchange = _Exchange(receive, send, limit, settings.stall_s)
        try:
            if Headers(scope=scope).get("content-encoding", "identity").strip().lower() != "identity":
                raise CompressedBody("the body must be sent as it is, without Content-Encoding")
            if scope["path"] in _AT_ONCE:
                pipeline.admission.admit(deadline)
            with _while_needed(scope):
                async with asyncio.timeout(settings.answer_s) as exchange.patience:
                    await self.app(scope, exchange.receive, exchange.send)
        except RadiolucentError as error:
            await problem_of(error, request_id)(scope, receive, send)
        except Exception as error:
            logger.exception("request %s failed", request_id)
            if exchange.answered:
                raise
            await problem_of(_fault(error, exchange), request_id)(scope, receive, send)


def _while_needed(scope: Scope) -> AbstractContextManager[None]:
    """Ends what is computed for a client that has left; what is to be stored is stored without it, too."""
    stores = scope["path"] not in _COMPUTED or b"store=" in scope["query_string"]
    return nullcontext() if stores else while_client_waits(scope)


def _fault(error: Exception, exchange: _Exchange) -> RadiolucentError:
    if exchange.patience is not None and exchange.patience.expired():
        return AnswerTooLate("nothing was answered within the service's limit; ask for less, or for a job")
    return storage_full() if is_storage_full(error) else RadiolucentError(_OURS)


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
        return CORSMiddleware(
            self._guarded,
            allow_origins=gate.origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=_ASKED,
            expose_headers=_ANSWERED,
        )

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate: Gate = self.api.state.gate
        request_id: str = _request_id(scope)
        visit, route = gate.visit(scope, request_id)
        scope["state"]["visit"] = visit

        def told(status: int) -> None:
            visit.status = status

        send = with_safe_headers(send, told, tls=scope.get("scheme") == "https")
        try:
            await gate.admit(scope, visit, route)
        except RadiolucentError as error:
            await problem_of(error, request_id, browsable=route.browsable)(scope, receive, send)
        else:
            if scope["method"] == "HEAD":  # as GET (RFC 9110 9.3.2), which routes know alone; the server sends no body
                asked = {**scope, "method": "GET"}
                await self._answer(asked, receive, send)
                scope.update(asked, method="HEAD")  # its route is for the log
            else:
                await self._answer(scope, receive, send)
        finally:
            gate.leave(visit)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES and scope["method"] != "GET":  # BentoML's are not found then, ours would answer
            await only_get(scope["state"]["request_id"])(scope, receive, send)
        elif scope["path"] == "/readyz":
            registry = self.api.state.pipeline.registry
            ready = Readiness(ready=bool(registry.names), models=registry.names, refused=registry.refused)
            status = 200 if ready.ready else 503
            await Response(ready.model_dump_json(), status, media_type="application/json")(scope, receive, send)
        elif scope["path"].startswith("/v1/"):
            await self.api(scope, receive, send)  # sooner
        else:
            app = self.api if scope["path"] == "/" else self.app  # BentoML's page there asks other hosts for scripts
            await app(scope, receive, with_problems(scope, receive, send))
