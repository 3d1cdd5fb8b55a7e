"""Which scope each route asks for: one table, and what it does not list needs `admin`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["predict", "explain", "metrics", "admin"]
Need = Scope | Literal["open", "reader"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_IMPLIED: dict[Scope, tuple[Scope, ...]] = {"explain": ("predict",), "admin": SCOPES}  # every explanation predicts too


@dataclass(frozen=True, slots=True)
class Route:
    """What a route asks for.

    Attributes:
        methods: HTTP methods, apart by spaces; GET stands for HEAD as well.
        path: `{name}` is one part of it, `/...` at its end everything below.
        need: a scope; `open` asks for nothing, `reader` for the code of a reader study, which its routes check.
        browsable: what people open in a browser, which can send a key only as the password of HTTP Basic.
    """

    methods: str
    path: str
    need: Need
    browsable: bool = False


ROUTES = (
    Route("GET", "/", "open"),
    Route("GET", "/page/...", "open"),
    Route("GET", "/livez", "open"),
    Route("GET", "/readyz", "open"),
    Route("GET", "/healthz", "open"),
    Route("GET", "/v1/models", "predict"),
    Route("POST", "/v1/predict", "predict"),
    Route("POST", "/v1/frames", "predict"),
    Route("POST", "/v1/segment", "predict"),
    Route("GET", "/v1/examples/series.zip", "predict"),
    Route("POST", "/v1/explain", "explain"),
    Route("POST", "/v1/report", "explain"),
    Route("POST", "/v1/explanations", "explain"),
    Route("GET DELETE", "/v1/explanations/{job}", "explain"),
    Route("POST", "/v1/studies", "explain"),
    Route("POST", "/v1/series", "explain"),
    Route("GET", "/v1/jobs", "admin"),  # everybody's; one job is its holder's (service.access.holding)
    Route("GET DELETE", "/v1/jobs/{job}", "explain"),
    Route("GET", "/v1/jobs/{job}/results", "explain"),
    Route("POST", "/v1/jobs/{job}/retry", "admin"),
    Route("GET", "/study", "open"),
    Route("GET", "/study/...", "open"),
    Route("GET POST PUT", "/v1/reading", "reader"),
    Route("GET POST PUT", "/v1/reading/...", "reader"),
    Route("GET", "/docs", "predict", browsable=True),
    Route("GET", "/openapi.json", "predict", browsable=True),
    Route("GET", "/static_content/...", "open"),  # BentoML's copy of Swagger UI
    Route("GET", "/metrics", "metrics", browsable=True),
    Route("GET", "/schema.json", "admin"),  # BentoML's own
)
UNLISTED = Route("", "other", "admin")


def _pattern(path: str) -> re.Pattern[str]:
    whole = re.sub(r"\\\{[a-z]+\\\}", "[^/]+", re.escape(path))
    return re.compile(whole.replace(re.escape("/..."), "/.*"), re.DOTALL)


_LITERAL = {(method, route.path): route for route in ROUTES for method in route.methods.split()}
_PATTERNS = tuple(
    (route.methods.split(), _pattern(route.path), route) for route in ROUTES if re.search(r"[{.]", route.path)
)


def route_of(method: str, path: str) -> Route:
    """The table's entry for a request; `UNLISTED` where it has none.

    Args:
        method: of HTTP.
        path: decoded, as the application routes it.
    """
    method = "GET" if method == "HEAD" else method
    found = _LITERAL.get((method, path))
    if found is not None:
        return found
    for methods, pattern, route in _PATTERNS:
        if method in methods and pattern.fullmatch(path):
            return route
    return UNLISTED


def granted(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    """What these scopes allow: `explain` includes `predict`, `admin` everything."""
    return frozenset(scopes).union(*(_IMPLIED.get(scope, ()) for scope in scopes))
