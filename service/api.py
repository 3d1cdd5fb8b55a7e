"""The HTTP API: its routes put together, and those for single images."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.case_routes import add_case_routes
from service.documentation import add_documentation
from service.edge import Guard, on_http, on_invalid
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.explainers import offered
from service.explainers.base import Options
from service.forms import PROBLEMS, ImagesField, ModelField, pipeline_of, read_uploads, wish_of
from service.jobs.routes import add_job_routes
from service.jobs.store import JobStore
from service.jobs.worker import JobWorker
from service.observability.exposition import CONTENT_TYPE, exposition
from service.observability.stages import observe_received, stage
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
    Result,
    SegmenterDescription,
)
from service.segment_routes import add_segment_routes
from service.segmenter import Segmenter
from service.settings import Settings
from service.studies.desk import StudyDesk
from service.studies.routes import add_study_routes

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
    api.add_exception_handler(RequestValidationError, on_invalid)
    api.add_exception_handler(HTTPException, on_http)
    api.add_middleware(Guard)
    _add_routes(api)
    add_segment_routes(api)
    add_job_routes(api)
    add_study_routes(api)
    add_reader_study_routes(api)
    add_case_routes(api)
    add_page_routes(api)
    add_documentation(api)
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
    @api.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(exposition(), headers={"Content-Type": CONTENT_TYPE})

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
    label = method.name if method else PREDICT
    uploads = await read_uploads(request, model, images)
    observe_received(model, label)
    result = await pipeline.answer(request.state.request_id, model, uploads, wish)
    with stage("encode", model, label):
        body = result.model_dump_json()
    return Response(body, media_type="application/json")
