"""Access tokens of an OpenID provider: JSON Web Tokens (RFC 7519, RFC 9068) checked against its published keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from service.access.scopes import SCOPES, Scope
from service.errors import IdentityUnavailable, Unauthenticated
from service.observability import logger
from service.validation import Strict

if TYPE_CHECKING:
    from joserfc.jwk import KeySet
    from requests import Session

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_MAX_TOKEN = 16_384  # characters
_MAX_ANSWER = 2**20  # bytes of the provider
_REMEMBER = 4096  # checked tokens
_RECHECK_S = 300.0  # after which a remembered token's signature is checked again: its key may have been withdrawn
_DISCOVERY = "/.well-known/openid-configuration"


class Oidc(Strict):
    """An OpenID provider.

    Attributes:
        issuer: as the tokens' `iss` says it.
        audience: what the tokens' `aud` must hold, this service's name at the provider.
        jwks_url: of its public keys; where left out, the issuer's discovery document tells it.
        algorithms: of signatures; public keys only.
        claim: that holds the scopes: words apart by spaces, or a list.
        scopes: what its words mean here.
        leeway_s: seconds that the clocks may differ.
        ca: certificates that sign the provider's; None for the usual ones.
        timeout_s: seconds to wait for the provider.
        refresh_s: seconds for which its keys are kept; a token with an unknown key has them fetched anew before.
        retry_s: seconds between tries.
    """

    issuer: str
    audience: str = Field(min_length=1)
    jwks_url: str = ""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    claim: str = "scope"
    scopes: dict[str, Scope] = Field(default_factory=lambda: {f"radiolucent:{scope}": scope for scope in SCOPES})
    leeway_s: int = Field(default=30, ge=0, le=300)
    ca: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0)
    refresh_s: float = Field(default=3600.0, gt=0)
    retry_s: float = Field(default=30.0, ge=0)

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _is_private(cls, address: str) -> str:
        parts = urlsplit(address)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if address and not (parts.scheme == "https" or (parts.scheme == "http" and local)):
            raise ValueError("give an https address: whoever can change what it answers decides who may ask")
        return address


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token speaks for.

    Attributes:
        subject: `sub`.
        scopes: what it opens here.
        until: when it ends, in seconds since 1970.
    """

    subject: str
    scopes: tuple[Scope, ...]
    until: float


class Tokens:
    """Checks tokens, and remembers those that held.

    Args:
        oidc: the provider.
        clock: seconds that only grow.
    """

    def __init__(self, oidc: Oidc, clock: Callable[[], float] = monotonic) -> None:
        self._oidc, self._clock = oidc, clock
        self._known: dict[bytes, tuple[Bearer, float]] = {}
        self._keys: KeySet | None = None
        self._fetched = self._tried = float("-inf")
        self._lock = Lock()

    def remembered(self, token: str) -> Bearer | None:
        """Whom a token speaks for that was checked in the last minutes and has not ended."""
        found = self._known.get(_digest(token))
        if found is None or self._clock() > found[1] or time() >= found[0].until:
            return None
        return found[0]

    def check(self, token: str) -> Bearer:
        """Whom a token speaks for. May wait for the provider: not to be called from the event loop.

        Raises:
            Unauthenticated: not a token, not of this provider, not for this service, ended or not begun.
            IdentityUnavailable: the provider's keys cannot be fetched.
        """
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > _MAX_TOKEN:
            raise Unauthenticated("the token is too long")
        try:
            claims = jwt.decode(token, self._keys_for(token), algorithms=list(self._oidc.algorithms)).claims
            self._check_claims(claims)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:  # of untrusted base64 and JSON
            raise Unauthenticated(f"the token does not hold: {_reason(error)}") from None
        bearer = Bearer(str(claims["sub"]), self._scopes(claims), float(claims["exp"]) + self._oidc.leeway_s)
        if len(self._known) >= _REMEMBER:
            self._known.clear()
        self._known[_digest(token)] = (bearer, self._clock() + _RECHECK_S)
        return bearer

    def _check_claims(self, claims: dict[str, Any]) -> None:
        from joserfc.jwt import JWTClaimsRegistry

        JWTClaimsRegistry(
            leeway=self._oidc.leeway_s,
            iss={"essential": True, "value": self._oidc.issuer},
            aud={"essential": True, "value": self._oidc.audience},
            exp={"essential": True},
            sub={"essential": True},
        ).validate(claims)

    def _scopes(self, claims: dict[str, Any]) -> tuple[Scope, ...]:
        held = claims.get(self._oidc.claim, "")
        words: Iterable[Any] = held.split() if isinstance(held, str) else held if isinstance(held, list) else ()
        return tuple(self._oidc.scopes[word] for word in words if isinstance(word, str) and word in self._oidc.scopes)

    def _keys_for(self, token: str) -> KeySet:
        """The provider's keys, fetched where they are old or where this token's is not among them."""
        kid = _key_id(token)
        with self._lock:
            known = self._keys is not None and (kid is None or any(key.kid == kid for key in self._keys))
            now = self._clock()
            if (not known or now - self._fetched > self._oidc.refresh_s) and now - self._tried >= self._oidc.retry_s:
                self._tried = now
                self._refresh()
            if self._keys is None:
                raise IdentityUnavailable("the identity provider does not answer; try again later")
            return self._keys

    def _refresh(self) -> None:
        """Fetch; where that fails, the keys from before hold on."""
        import requests
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        try:
            with requests.Session() as session:
                session.trust_env = False
                session.verify = str(self._oidc.ca) if self._oidc.ca else True
                url = self._oidc.jwks_url or str(
                    self._fetch(session, self._oidc.issuer.rstrip("/") + _DISCOVERY)["jwks_uri"]
                )
                Oidc.model_validate(self._oidc.model_dump() | {"jwks_url": url})
                found = self._fetch(session, url)["keys"]
            public = [key for key in found if key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig"]
            self._keys = KeySet.import_key_set({"keys": public})
            self._fetched = self._tried
        except (requests.RequestException, JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.error("the identity provider's keys cannot be fetched: %s", type(error).__name__)

    def _fetch(self, session: Session, url: str) -> dict[str, Any]:
        with session.get(url, timeout=self._oidc.timeout_s, allow_redirects=False, stream=True) as answer:
            if answer.status_code != 200:
                raise ValueError("not 200")
            body = answer.raw.read(_MAX_ANSWER + 1, decode_content=True)
        if len(body) > _MAX_ANSWER:
            raise ValueError("too long")
        found = json.loads(body)
        return found if isinstance(found, dict) else {}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _key_id(token: str) -> str | None:
    """`kid` of a token's header, which nobody vouches for yet."""
    from joserfc.util import urlsafe_b64decode

    try:
        header = json.loads(urlsafe_b64decode(token.partition(".")[0].encode()))
    except (ValueError, RecursionError):
        raise Unauthenticated("this is neither a key nor a token") from None
    kid = header.get("kid") if isinstance(header, dict) else None
    return kid if isinstance(kid, str) else None


def _reason(error: Exception) -> str:
    """Words for the client: names of claims and of errors, nothing of what the token holds."""
    claim = getattr(error, "claim", None)
    name = str(getattr(error, "error", "not a JSON Web Token")).replace("_", " ")
    return f"{name} ({claim})" if isinstance(claim, str) else name
