"""Around everything else: an id for every request, its span, its metrics, and a line in the log when it is answered."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable
from functools import cache
from time import perf_counter

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability.current import Current, enter
from service.observability.metrics import REQUEST_SECONDS, REQUESTS_IN_FLIGHT
from service.observability.traces import begin_request, end_request

ACCESS = logging.getLogger("radiolucent.access")
UNMATCHED = "unmatched"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
PROBES = frozenset(("/livez", "/readyz", "/healthz"))
_FREQUENT = PROBES | {"/metrics"}  # too much so for the log
# A UUID, with or without hyphens. Any other token could be a patient's number, and ids are logged.
_ID = re.compile(rb"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")


@cache
def _seconds(route: str, status: str) -> Histogram:
    return REQUEST_SECONDS.labels(route, status)


class Observed:
    """Watches an application answer.

    A caller's X-Request-ID is kept where it is a UUID, else a new id is made; the answer's X-Request-ID has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Current(_id_of(scope["headers"]), perf_counter(), begin_request(scope["headers"]))
        enter(request)
        scope.setdefault("state", {})["request_id"] = request.request_id
        answer = _Answer(send, request.request_id)
        REQUESTS_IN_FLIGHT.inc()
        try:
            await self.app(scope, receive, answer.send)
        finally:
            REQUESTS_IN_FLIGHT.dec()
            _tell(request, scope, answer)


class _Answer:
    """Passes an answer on with the request's id, and keeps its status and its bytes."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._header = send, (b"x-request-id", request_id.encode())
        self.status: int | None = None
        self.bytes = 0

    async def send(self, message: Message) -> None:
        """ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def _id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    sent = next((value for name, value in headers if name == b"x-request-id"), b"")
    return sent.decode().lower() if _ID.fullmatch(sent) else uuid.uuid4().hex


def _tell(request: Current, scope: Scope, answer: _Answer) -> None:
    lasted = perf_counter() - request.start
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route = route_of(scope)
    status = "aborted" if answer.status is None else f"{answer.status // 100}xx"
    _seconds(route, status).observe(lasted)
    if request.span is not None:
        end_request(request.span, method, route, answer.status)
    if route not in _FREQUENT and ACCESS.isEnabledFor(logging.INFO):
        ms = round(1000 * lasted, 1)
        fields = {"method": method, "route": route, "status": answer.status, "ms": ms, "bytes": answer.bytes}
        shown = (method, route, answer.status or "aborted", ms, answer.bytes)
        ACCESS.info("%s %s %s %s ms %d B", *shown, extra={"fields": fields})


def route_of(scope: Scope) -> str:
    """The template of the route that answered, never the path that was sent; of static files, the folder."""
    template: str = getattr(scope.get("route"), "path", "")
    if template:
        return template
    if scope["path"] in _FREQUENT:
        return scope["path"]
    return f"{scope['root_path']}/*" if scope.get("root_path") else UNMATCHED
