"""The API's documentation: Swagger UI from our own host, and what the OpenAPI document says of keys and tokens."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse

from service.access.scopes import route_of

_ASSETS = "/static_content"  # BentoML's copy of Swagger UI: the documentation needs no other host
_SCHEME = "Key"
_REFUSED = {
    "401": "A key or a token is needed, where the service asks for one",
    "403": "The key or the token is not for this",
    "429": "Too many requests of this caller; `Retry-After` says when to come back",
}


def add_documentation(api: FastAPI) -> None:
    """Add `/docs` and `/openapi.json`, which says of each route which scope it needs. After all other routes."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Radiolucent API",
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-light-32x32.png",
        ).body
    ).decode()
    headers = {"Content-Security-Policy": _policy(page), "Cache-Control": "no-cache"}

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction] - the route keeps it
        return HTMLResponse(page, headers=headers)

    plain = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            _tell_access(plain())
        assert api.openapi_schema is not None  # noqa: S101 - made by the line before
        return api.openapi_schema

    api.openapi = openapi

    async def document() -> JSONResponse:
        return JSONResponse(api.openapi())

    # FastAPI's own is no route of the kind that logs and metrics know by its path
    api.add_api_route("/openapi.json", document, include_in_schema=False)


def _policy(page: str) -> str:
    """Scripts of our own host, and the page's one inline script by its digest; Swagger UI writes its own styles."""
    inline = [script.encode() for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in inline)
    return (
        f"default-src 'none'; script-src 'self' {digests}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _tell_access(document: dict[str, Any]) -> None:
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes[_SCHEME] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key or an OpenID Connect access token; nothing where the service answers its own "
        "machine only. Which scope a route needs stands in its description.",
    }
    refused = {
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            need = route_of(method.upper(), path).need
            if need in ("open", "reader"):
                continue
            operation["security"] = [{}, {_SCHEME: []}]
            operation["description"] = f"{operation.get('description', '')}\n\nScope: `{need}`.".strip()
            for status, words in _REFUSED.items():
                operation["responses"].setdefault(status, refused | {"description": words})
