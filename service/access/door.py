"""Whether it is this machine alone that can ask: at which address the service listens, and who a request comes from."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from service.access.settings import AccessSettings
from service.errors import AccessError, NotLocal

_HELP = (
    "Give RADIOLUCENT_KEYS (python -m service.access create FILE --scopes explain) or RADIOLUCENT_OIDC, listen on "
    "127.0.0.1 (--host 127.0.0.1), or say RADIOLUCENT_INSECURE=true where something else asks callers who they are. "
    "See docs/access.md."
)


@lru_cache(64)
def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own; `localhost` is (RFC 6761 6.3), other names are not."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_door(settings: AccessSettings, host: str) -> None:
    """Refuse to start where others could ask without being asked who they are.

    Args:
        settings: of this service.
        host: to listen on.

    Raises:
        AccessError: `host` is not loopback, and nothing says who may ask.
    """
    if not settings.is_guarded and not settings.insecure and not is_loopback(host):
        raise AccessError(f"it would listen on {host}, and anybody could ask. {_HELP}")


def check_local(scope: Scope, origins: Collection[str] = ()) -> None:
    """The same for one request, for servers that were not started by BentoML's command.

    Also refused: a proxy on this machine that brings others' requests (its server sets `client` from X-Forwarded-For),
    pages of other sites whose name was made to point here (DNS rebinding), which `Host` gives away, and forms that such
    pages send here, which `Origin` does.

    Args:
        scope: of the request.
        origins: other sites whose pages may ask.

    Raises:
        NotLocal: neither guarded nor local.
    """
    ends = (scope.get("server"), scope.get("client"))
    hosts = [end[0] for end in ends if end and end[0] and end[1] is not None]  # a Unix socket has no port
    named = Headers(scope=scope).get("host", "")
    if named:
        hosts.append(named if named.endswith("]") else named.rpartition(":")[0] or named)
    if not all(map(is_loopback, hosts)):
        raise NotLocal(f"the service answers this machine only, under its loopback address. {_HELP}")
    if not all(_is_ours(origin, origins) for origin in Headers(scope=scope).getlist("origin")):
        raise NotLocal(
            "pages of other sites may ask only where RADIOLUCENT_CORS_ORIGINS names them. See docs/access.md."
        )


def _is_ours(origin: str, others: Collection[str]) -> bool:
    """Whether a page of this machine or of a site that may asks; `null` is any site that hides its name."""
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return origin in others or "*" in others or (host is not None and is_loopback(host))
