"""The readers' page: static files, which may load nothing from anywhere else."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

_OWN = Path(__file__).with_name("pages")
_SHARED = Path(__file__).resolve().parent.parent / "page"
_SHARED_FILES = ("theme.css", "viewer.js", "gestures.js", "placement.js", "painting.js", "contours.js", "colours.js")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(api: FastAPI) -> None:
    """Add `/study` and the files that it is made of."""

    @api.get("/study", include_in_schema=False)
    def page(request: Request) -> Response:
        return _file(request, "index.html")

    @api.get("/study/{name}", include_in_schema=False)
    def part(request: Request, name: str) -> Response:
        return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in _files():
        raise HTTPException(404)
    content, tag = _read(name)
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)


@cache
def _files() -> dict[str, Path]:
    """By name: the page's own, and of the start page what both have in common."""
    own = {path.name: path for path in _OWN.iterdir() if path.suffix in _TYPES}
    return {name: _SHARED / name for name in _SHARED_FILES} | own


@cache
def _read(name: str) -> tuple[bytes, str]:
    content = _files()[name].read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
