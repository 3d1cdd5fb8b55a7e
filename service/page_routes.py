"""The page at `/` and its files: static, from the package, under a policy that lets the browser ask no other host."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).with_name("page")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # ask again each time; an unchanged file is a 304
}


class PageFiles(StaticFiles):
    """Files of a folder with `HEADERS`, and 304 where the browser's copy (ETag) is the same.

    Args:
        folder: with the files; links out of it are not followed.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__(directory=folder)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """With the headers, which hold for an unchanged file as well."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def add_page_routes(api: FastAPI) -> None:
    """Add `/` and `/page/`."""
    files = PageFiles()

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    api.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    api.mount("/page", files)
