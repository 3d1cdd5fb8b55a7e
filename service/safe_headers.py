"""Headers that keep an answer safe in browsers (OWASP HTTP headers, RFC 6797)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send

# On every answer that does not say otherwise itself. It is data, to be shown by nobody else and kept by no cache.
_SAFE = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
_ONLY_TLS = {b"strict-transport-security": b"max-age=31536000"}


def with_safe_headers(send: Send, told: Callable[[int], None], *, tls: bool) -> Send:
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
