"""The HTTP API: its routes put together, and those for single images."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.responses import Response

from service.answers import maps_file
from service.case_routes import add_case_routes
from service.composing import Wish
from service.documentation import add_documentation
from service.edge import Guard
from service.errors import InvalidParameter
from service.examples import EXPLAIN_EXAMPLE, PREDICT_EXAMPLE
from service.explainers import offered
from service.explainers.base import Options
from service.forms import FORM, DeadlineField, ExplainForm, ImagesForm, pipeline_of, read_uploads
from service.jobs.routes import add_job_routes
from service.jobs.store import JobStore
from service.jobs.worker import JobWorker
from service.observability.exposition import CONTENT_TYPE, exposition
from service.observability.stages import observe_received, stage
from service.page_routes import add_page_routes
from service.parameters import check_parameters, note_parameters
from service.pipeline import PREDICT
from service.problems import PROBLEM, PROBLEMS, on_http, on_invalid
from service.reader_study.readings import ReadingStore
from service.reader_study.routes import add_reader_study_routes
from service.reader_study.rows import open_database
from service.registry import Model
from service.schemas import (
    RESEARCH_NOTICE,
    ImageAnswer,
    ImageFailure,
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

NPY = "application/x-npy"

# Where compressing costs more than it saves: what is compressed, and pixels by the megabyte.
_INCOMPRESSIBLE = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/dicom", "application/pdf", "multipart/*", NPY)

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
    "preprocessing",
    "invariance",
    "gate",
    "conformal",
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
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(check_parameters)],
    )
    api.add_exception_handler(RequestValidationError, on_invalid)
    api.add_exception_handler(HTTPException, on_http)
    api.add_middleware(GZipMiddleware, minimum_size=4096, compresslevel=1, exclude_content_types=_INCOMPRESSIBLE)
    api.add_middleware(Guard)
    _add_routes(api)
    add_segment_routes(api)
    add_job_routes(api)
    add_study_routes(api)
    add_reader_study_routes(api)
    add_case_routes(api)
    add_page_routes(api)
    add_documentation(api)
    note_parameters(api)
    return api


def set_up_jobs(api: FastAPI, settings: Settings, *, has_port: bool = True) -> None:
    """Open the databases of jobs, studies and reader studies, and make the workers; `api.state.pipeline` must be set.

    The workers begin where the service starts (`service.serving`), and take up what an earlier process left unfinished.
    Of several processes one has the port of C-STORE.
    """
    api.state.jobs = JobStore(
        settings.jobs_database, lease=settings.job_lease_s, ttl=settings.job_ttl_s, limit=settings.max_jobs
    )
    api.state.job_worker = JobWorker(api.state.jobs, api.state.pipeline)
    api.state.desk = StudyDesk(settings, api.state.pipeline, has_port=has_port)
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
    async def predict(request: Request, form: Annotated[ImagesForm, FORM], deadline: DeadlineField) -> Response:
        return await _answer(request, form, Wish(), deadline)

    @api.post(
        "/v1/explain",
        summary="Predict, and show the evidence",
        response_model=Result,
        responses={
            200: {
                "content": {"application/json": {"example": EXPLAIN_EXAMPLE}, NPY: {}},
                "description": "`Accept: application/x-npy` gives the maps alone, float32 [images, targets, rows, "
                "columns], not-a-number where an image failed; X-Labels and X-Targets say in JSON what of each image.",
            },
            **PROBLEMS,
        },
    )
    async def explain(request: Request, form: Annotated[ExplainForm, FORM], deadline: DeadlineField) -> Response:
        return await _answer(request, form, form.wish(), deadline)


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
                same_as=method.same_as or None,
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


async def _answer(request: Request, form: ImagesForm, wish: Wish, deadline: float | None) -> Response:
    pipeline, model = pipeline_of(request), form.model
    method = pipeline.check(model, len(form.images), wish)
    label = method.name if method else PREDICT
    as_file = method is not None and NPY in request.headers.get("accept", "")
    if as_file:
        if len({target == "all" for target in wish.target}) > 1:
            raise InvalidParameter(
                "target: a file of maps holds as many of each image: `all` for every file, or for none"
            )
        wish = replace(wish, saliency="float32", overlay=False)
    uploads = await read_uploads(request, model, form.images)
    observe_received(model, label)
    result = await pipeline.answer(request.state.request_id, model, uploads, wish, deadline=deadline)
    with stage("encode", model, label):
        return _maps(result) if as_file else Response(result.model_dump_json(), media_type="application/json")


def _maps(result: Result) -> Response:
    """The maps alone; where there is none, why the first is missing."""
    answered = any(isinstance(each, ImageAnswer) for each in result.results)
    if not answered:
        failed = next(each.error for each in result.results if isinstance(each, ImageFailure))
        body = failed.model_copy(update={"request_id": result.request_id}).model_dump_json()
        return Response(body, status_code=failed.status, media_type=PROBLEM)
    labels = [each.label if isinstance(each, ImageAnswer) else None for each in result.results]
    explained = (each.explanations if isinstance(each, ImageAnswer) else [] for each in result.results)
    targets = [[map_.target for map_ in maps] for maps in explained]
    headers = {"X-Labels": json.dumps(labels), "X-Targets": json.dumps(targets), "X-Notice": RESEARCH_NOTICE}
    return Response(maps_file(result.results), media_type=NPY, headers=headers)
