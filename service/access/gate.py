"""Lets a request in, or says why not: who asks, what for, and how much of it there is already."""

from __future__ import annotations

import base64
import binascii

import anyio.to_thread
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.types import Scope as Connection

from service.access.audit import AuditLog, Visit
from service.access.door import check_local
from service.access.keys import PREFIX, Keys
from service.access.rates import Rates
from service.access.scopes import Route, granted, route_of
from service.access.settings import AccessSettings
from service.access.shared_rates import SharedRates
from service.access.tokens import Bearer, Tokens
from service.errors import NotAllowed, Unauthenticated
from service.observability import hashed_uid
from service.observability.requests import PROBES


class Gate:
    """One for each worker process.

    Args:
        settings: who may ask.
        site_key: that subjects of tokens are hashed with (`service.site_key`).
        rates: how much each caller may.

    Raises:
        FileNotFoundError, AccessError: the file of keys cannot be used.
        OSError: the audit log cannot be opened.
    """

    def __init__(self, settings: AccessSettings, site_key: bytes, rates: Rates | SharedRates) -> None:
        self._settings, self._site_key = settings, site_key
        self._keys = Keys(settings.keys) if settings.keys else None
        self._tokens = Tokens(settings.oidc) if settings.oidc else None
        self._rates = rates
        self._log = AuditLog(settings.audit_log) if settings.audit_log else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Other sites whose pages may ask."""
        return self._settings.cors_origins

    def visit(self, connection: Connection, request_id: str) -> tuple[Visit, Route]:
        """What is to be known of a request, and what its route asks for."""
        route = route_of(connection["method"], get_route_path(connection))
        method = connection["method"] if route.methods else "OTHER"  # a caller's own words stay out of the log
        return Visit(request_id, method, route.path, keep=self._log is not None), route

    async def admit(self, connection: Connection, visit: Visit, route: Route) -> None:
        """Return where the request may go on; `leave` must follow in any case.

        Raises:
            NotLocal: nobody is asked who they are, and this comes from elsewhere, or from a page of elsewhere.
            Unauthenticated: no key or token, or none that holds.
            NotAllowed: it is not for this.
            TooManyRequests: the caller's rate, or requests at once.
            IdentityUnavailable: the provider of tokens does not answer.
        """
        if not self._settings.is_guarded:
            if not self._settings.insecure:
                check_local(connection, self.origins)
            return
        if route.need in ("open", "reader"):
            return
        await self._identify(visit, _secret(connection, browsable=route.browsable))
        if route.need not in visit.scopes:
            raise NotAllowed(f"this key or token is not for it: the scope {route.need} is needed")
        self._rates.enter(visit.caller)
        visit.counted = True

    def leave(self, visit: Visit) -> None:
        """The request has ended, as its `status` says."""
        if visit.counted:
            self._rates.leave(visit.caller)
        if self._log is not None and visit.route not in _SILENT:
            self._log.write(visit)

    async def _identify(self, visit: Visit, secret: str) -> None:
        if secret.startswith(PREFIX) or self._tokens is None:
            record = self._keys.find(secret) if self._keys else None
            if record is None:
                raise Unauthenticated("the key is not known, was revoked or has ended")
            visit.caller, visit.holder = f"key:{record.id}", f"key:{record.held_by}"
            visit.scopes = granted(record.scopes)
            return
        bearer: Bearer = self._tokens.remembered(secret) or await anyio.to_thread.run_sync(self._tokens.check, secret)
        visit.caller = visit.holder = f"token:{hashed_uid(bearer.subject, self._site_key)}"
        visit.scopes = granted(bearer.scopes)


_SILENT = PROBES | {"/page/...", "/static_content/..."}  # nobody's, and many


def _secret(connection: Connection, *, browsable: bool) -> str:
    """The key or the token of a request, never from its address, which logs and histories keep.

    Raises:
        Unauthenticated: none.
    """
    kind, _, value = Headers(scope=connection).get("authorization", "").partition(" ")
    secret = value.strip()
    if kind.lower() == "basic" and browsable:
        try:
            secret = base64.b64decode(secret, validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            raise Unauthenticated("the password cannot be read") from None
    elif kind.lower() != "bearer":
        raise Unauthenticated("a key or a token is needed: Authorization: Bearer ...")
    if not secret or not secret.isascii():
        raise Unauthenticated("a key or a token is needed: Authorization: Bearer ...")
    return secret
