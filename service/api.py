"""The HTTP API: routes, parameters, and one error body for everything that goes wrong."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, FastAPI, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.case_routes import add_case_routes
from service.errors import InvalidParameter, RadiolucentError, TooLarge
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.explainers import offered
from service.explainers.base import Options
from service.forms import PROBLEM, PROBLEMS, ImagesField, ModelField, pipeline_of, read_uploads, wish_of
from service.jobs.routes import add_job_routes
from service.jobs.store import JobStore
from service.jobs.worker import JobWorker
from service.observability import ERRORS, STAGE_SECONDS, logger
from service.page_routes import add_page_routes
from service.pipeline import PREDICT, Wish
from service.reader_study.readings import ReadingStore
from service.reader_study.routes import add_reader_study_routes
from service.reader_study.rows import open_database
from service.registry import Model
from service.schemas import (
    RESEARCH_NOTICE,
    MethodDescription,
    ModelDescription,
    Models,
    Problem,
    Readiness,
    Result,
    SegmenterDescription,
)
from service.segment_routes import add_segment_routes
from service.segmenter import Segmenter
from service.settings import Settings
from service.studies.desk import StudyDesk
from service.studies.routes import add_study_routes

_ASSETS = "/static_content"  # BentoML's copy of Swagger UI: the documentation needs no other host

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}

_DESCRIBED = (
    "id",
    "version",
    "title",
    "kind",
    "labels",
    "findings",
    "default_explanation",
    "provenance",
    "evaluation",
    "profiles",
    "intended_use",
    "limits",
    "licence",
)


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
    add_segment_routes(api)
    add_job_routes(api)
    add_study_routes(api)
    add_reader_study_routes(api)
    add_case_routes(api)
    add_page_routes(api)
    return api


def set_up_jobs(api: FastAPI, settings: Settings) -> None:
    """Open the databases of jobs, studies and reader studies, and make the workers; `api.state.pipeline` must be set.

    The workers begin where the service starts (`service.app`), and take up what an earlier process left unfinished.
    """
    api.state.jobs = JobStore(
        settings.jobs_database, lease=settings.job_lease_s, ttl=settings.job_ttl_s, limit=settings.max_jobs
    )
    api.state.job_worker = JobWorker(api.state.jobs, api.state.pipeline)
    api.state.desk = StudyDesk(settings, api.state.pipeline)
    api.state.readings = ReadingStore(open_database(settings.reader_studies))


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
        registry = pipeline_of(request).registry
        described = (*map(_described, registry.models.values()), *map(_outliner, registry.segmenters.values()))
        return Models(models=described, refused=registry.refused)

    @api.post(
        "/v1/predict",
        summary="Predict",
        response_model=Result,
        responses={200: {"content": {"application/json": {"example": PREDICT_EXAMPLE}}}, **PROBLEMS},
    )
    async def predict(request: Request, model: ModelField, images: ImagesField) -> Response:
        return await _answer(request, model, images, Wish())

    @api.post(
        "/v1/explain",
        summary="Predict, and show the evidence",
        response_model=Result,
        responses={200: {"content": {"application/json": {"example": EXPLAIN_EXAMPLE}}}, **PROBLEMS},
    )
    async def explain(
        request: Request, model: ModelField, images: ImagesField, wish: Annotated[Wish, Depends(wish_of)]
    ) -> Response:
        return await _answer(request, model, images, wish)


def _described(model: Model) -> ModelDescription:
    manifest = model.bundle.manifest
    quality = {e.method: e.quality for e in manifest.explanations}
    return ModelDescription(
        provider=model.engine.provider,
        precision=model.engine.precision,
        grid=manifest.graph.grid,
        explanations=tuple(
            MethodDescription(
                method=name,
                exact=method.exact,
                meaning=method.meaning,
                unit=method.unit,
                source=method.source,
                tier=model.costs.tier(method),
                typical_ms=round(model.costs.of(method, Options()), 1),
                default_budget=method.budget,
                targeted=method.targeted,
                contrast=method.targeted,
                quality=quality[name],
            )
            for name, method in offered(manifest).items()
        ),
        **{name: getattr(manifest, name) for name in _DESCRIBED},
    )


def _outliner(segmenter: Segmenter) -> SegmenterDescription:
    manifest = segmenter.manifest
    shared = set(SegmenterDescription.model_fields) - {"task", "provider", "grid"}
    size = manifest.preprocessing.size
    fields = {name: getattr(manifest, name) for name in shared}
    return SegmenterDescription(provider=segmenter.provider, grid=(size, size), **fields)


async def _answer(request: Request, model: str, images: list[UploadFile], wish: Wish) -> Response:
    pipeline = pipeline_of(request)
    method = pipeline.check(model, len(images), wish)
    result = await pipeline.answer(request.state.request_id, model, await read_uploads(images), wish)
    with STAGE_SECONDS.labels("encode", model, method.name if method else PREDICT).time():
        body = result.model_dump_json()
    return Response(body, media_type="application/json")


def _problem(error: RadiolucentError, request_id: str) -> Response:
    ERRORS.labels(error.kind).inc()
    headers = _HEADERS.get(error.status)
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
    """Around BentoML's own routes: the page, readiness that says which bundles serve, problems instead of plain text.

    /readyz answers 503 where no bundle is served, else 200, with the refused ones by name.
    """

    def __init__(self, app: ASGIApp, api: FastAPI) -> None:
        self.app = app
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/readyz":
            registry = self.api.state.pipeline.registry
            ready = Readiness(ready=bool(registry.names), models=registry.names, refused=registry.refused)
            status = 200 if ready.ready else 503
            await Response(ready.model_dump_json(), status, media_type="application/json")(scope, receive, send)
        elif scope["path"] == "/":  # BentoML's own page there asks other hosts for scripts
            await self.api(scope, receive, send)
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
