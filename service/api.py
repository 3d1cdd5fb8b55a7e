"""The HTTP API: routes, parameters, and one error body for everything that goes wrong."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InvalidParameter, RadiolucentError, TooLarge
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.observability import ERRORS, STAGE_SECONDS, logger
from service.pipeline import PREDICT, Pipeline, Upload, Wish
from service.schemas import RESEARCH_NOTICE, ModelDescription, Models, Problem, Readiness, Result

PROBLEM = "application/problem+json"
_ASSETS = "/static_content"  # BentoML's copy of Swagger UI: the documentation needs no other host

ModelField = Annotated[str, Form(description="Bundle id, as GET /v1/models lists it.", examples=["brain-mri-resnet50"])]
ImagesField = Annotated[
    list[UploadFile], File(description="One to 64 files: PNG, JPEG or DICOM (each frame is answered).")
]
_DESCRIBED = (
    "id",
    "version",
    "title",
    "kind",
    "labels",
    "findings",
    "explanations",
    "evaluation",
    "intended_use",
    "limits",
    "licence",
)
_PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": title, "content": {PROBLEM: {}}}
    for status, title in {
        400: "The request cannot be understood",
        404: "No such model",
        413: "Too many or too large files",
        422: "A parameter is not valid",
        500: "Our fault; the log has the same request id",
        503: "Too many images are waiting",
    }.items()
}


def make_api(version: str) -> FastAPI:
    """The application that BentoML mounts. `api.state.pipeline` must be set before the first request."""
    api = FastAPI(
        title="Radiolucent",
        version=version,
        description=f"Explainable inference for medical images. {RESEARCH_NOTICE}",
        docs_url=None,
        redoc_url=None,
    )
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_middleware(Guard)
    _add_routes(api)
    return api


def _add_routes(api: FastAPI) -> None:
    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Radiolucent API",
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-light-32x32.png",
        )

    @api.get("/v1/models", summary="Models, what they explain with, and how good they are")
    def models(request: Request) -> Models:
        registry = _pipeline(request).registry
        described = tuple(
            ModelDescription(
                provider=model.engine.provider,
                grid=model.bundle.manifest.graph.grid,
                **{name: getattr(model.bundle.manifest, name) for name in _DESCRIBED},
            )
            for model in registry.models.values()
        )
        return Models(models=described, refused=registry.refused)

    @api.post(
        "/v1/predict",
        summary="Predict",
        response_model=Result,
        responses={200: {"content": {"application/json": {"example": PREDICT_EXAMPLE}}}, **_PROBLEMS},
    )
    async def predict(request: Request, model: ModelField, images: ImagesField) -> Response:
        return await _answer(request, model, images, Wish())

    @api.post(
        "/v1/explain",
        summary="Predict, and show the evidence",
        response_model=Result,
        responses={200: {"content": {"application/json": {"example": EXPLAIN_EXAMPLE}}}, **_PROBLEMS},
    )
    async def explain(
        request: Request,
        model: ModelField,
        images: ImagesField,
        method: Annotated[str, Form(description="An explanation method of the model.")] = "gradcam",
        target: Annotated[str, Form(description="`predicted`, `all`, or a class name.")] = "predicted",
        overlay: Annotated[bool, Form(description="Add a PNG with the evidence over the image.")] = False,
    ) -> Response:
        return await _answer(request, model, images, Wish(method, target, overlay))


def _pipeline(request: Request) -> Pipeline:
    return request.app.state.pipeline


async def _answer(request: Request, model: str, images: list[UploadFile], wish: Wish) -> Response:
    pipeline = _pipeline(request)
    pipeline.check(model, len(images), wish)
    uploads = [Upload(image.filename or f"image-{number}", await image.read()) for number, image in enumerate(images)]
    result = await pipeline.answer(request.state.request_id, model, uploads, wish)
    with STAGE_SECONDS.labels("encode", model, wish.method or PREDICT).time():
        body = result.model_dump_json()
    return Response(body, media_type="application/json")


def _problem(error: RadiolucentError, request_id: str) -> Response:
    ERRORS.labels(error.kind).inc()
    headers = {"Retry-After": "1"} if error.status == 503 else None
    body = Problem.of(error, request_id).model_dump_json()
    return Response(body, status_code=error.status, media_type=PROBLEM, headers=headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Names the fields and what is wrong with them, never what they held."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    fields = "; ".join(f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in error.errors())
    return _problem(InvalidParameter(fields), request.state.request_id)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    return _http_problem(error, request.state.request_id)


def _http_problem(error: HTTPException, request_id: str) -> Response:
    """Starlette's own refusals (no such route, method not allowed, a broken multipart body) as problems."""
    ERRORS.labels("http").inc()
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=str(error.detail),
        request_id=request_id,
    )
    return Response(problem.model_dump_json(), status_code=error.status_code, media_type=PROBLEM, headers=error.headers)


class _Exchange:
    """One request's channels: counts what comes in, notes when the answer has begun."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._received = 0
        self.answered = False

    def _check(self) -> None:
        if self._received > self._limit:
            raise TooLarge(f"a request may hold at most {self._limit // 2**20} MiB")

    async def receive(self) -> Message:
        """ASGI; raises TooLarge past the limit in bytes."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._check()
        return message

    async def send(self, message: Message) -> None:
        """ASGI; raises TooLarge once more, because FastAPI turns what parsing a body raises into its own answer."""
        self._check()
        self.answered = True
        await self._send(message)


class Guard:
    """Gives every request an id, bounds its body, and turns what escapes the routes into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(receive, send, scope["app"].state.pipeline.settings.max_request_mib * 2**20)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except RadiolucentError as error:
            await _problem(error, request_id)(scope, receive, send)
        except Exception:
            logger.exception("request %s failed", request_id)
            if exchange.answered:
                raise
            fault = RadiolucentError("the fault is ours; the log has more under this request id")
            await _problem(fault, request_id)(scope, receive, send)


class Edge:
    """Around BentoML's own routes: readiness that says which bundles serve, and problems instead of plain text.

    /readyz answers 503 where no bundle is served, else 200, with the refused ones by name.
    """

    def __init__(self, app: ASGIApp, api: FastAPI) -> None:
        self.app = app
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/readyz":
            registry = self.api.state.pipeline.registry
            ready = Readiness(ready=bool(registry.models), models=tuple(registry.models), refused=registry.refused)
            status = 200 if ready.ready else 503
            await Response(ready.model_dump_json(), status, media_type="application/json")(scope, receive, send)
        else:
            await self.app(scope, receive, _with_problems(scope, receive, send))


def _with_problems(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that answers with a problem where the wrapped application refuses in plain text."""
    replaced = False

    async def replacing(message: Message) -> None:
        nonlocal replaced
        if message["type"] == "http.response.start" and message["status"] in (404, 405):
            plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
            if plain:
                replaced = True
                refusal = HTTPException(message["status"])
                await _http_problem(refusal, uuid.uuid4().hex)(scope, receive, send)
        if not replaced:
            await send(message)

    return replacing
