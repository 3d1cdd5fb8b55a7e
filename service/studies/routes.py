"""The HTTP API of studies: whole series in, answers and DICOM objects out, and the queue between archives."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import Depends, FastAPI, Query, Request
from starlette.responses import Response, StreamingResponse

from service.access.audit import note_file, note_model
from service.access.holding import holder_of, sight_of
from service.dicom_results.options import Kind
from service.dicomweb.client import dicom_json
from service.dicomweb.multipart import DICOM, Limits, MultipartReader, read_zip, write_multipart
from service.errors import BrokenUpload, UnknownJob
from service.problems import PROBLEMS, problem
from service.room import Share
from service.schemas import Problem
from service.studies.answering import SeriesResult, StudyWish
from service.studies.desk import StudyDesk
from service.studies.rows import StudyJob, StudyStatus
from service.studies.schemas import SeriesRequest, StudyJobAnswer, StudyJobs, StudyResult

_JOBS = "/v1/jobs"
_DICOM_JSON = "application/dicom+json"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": StudyResult,
        "description": "What was found, or the objects made of it, as `Accept` asks",
        "content": {'multipart/related; type="application/dicom"': {}, _DICOM_JSON: {}},
    },
    202: {"model": StudyJobAnswer, "description": "With `store`: it is in the queue, on disk"},
    502: problem("An archive failed"),
    **PROBLEMS,
}


def study_wish(
    request: Request,
    model: Annotated[str, Query(description="A bundle's id; left out, the rules choose for each series.")] = "",
    method: Annotated[str, Query(description="An explanation method; the model's default where left out.")] = "",
    target: Annotated[
        str,
        Query(description="A class, or `predicted`: the series' label, or the likeliest of a present finding."),
    ] = "predicted",
    results: Annotated[list[Kind] | None, Query(description="DICOM objects to make.")] = None,
) -> StudyWish:
    """The query parameters of a study."""
    return _desk(request).wish(model, method, target, None if results is None else tuple(results))


def add_study_routes(api: FastAPI) -> None:
    """Add the routes. `api.state.desk` must be set before the first request (`StudyDesk`)."""

    @api.post(
        "/v1/studies",
        summary="Answer every series of some DICOM instances",
        response_model=StudyResult,
        responses=_ANSWERS,
        openapi_extra=_BODY,
    )
    async def studies(
        request: Request,
        wish: Annotated[StudyWish, Depends(study_wish)],
        store: Annotated[
            str, Query(description="Name of a configured archive: the study is queued, its results are stored there.")
        ] = "",
    ) -> Response:
        desk = _desk(request)
        if store:
            return await _queue_upload(request, desk, wish, store)
        with desk.share() as share:
            contents = [content async for content in _contents(request, desk.limits, share)]
            if not contents:
                raise BrokenUpload("the body holds no file")
            results = await desk.answer(contents, wish, share)
            for manifest in (answer.manifest for result in results for answer in result.answers):
                note_model(request, manifest.id, manifest.version)
            return await _negotiated(request, desk, results)

    @api.post(
        "/v1/series",
        status_code=202,
        summary="Fetch a series from an archive, answer it, store the results",
        response_model=StudyJobAnswer,
        responses=PROBLEMS,
    )
    async def series(request: Request, asked: SeriesRequest) -> Response:
        job = await anyio.to_thread.run_sync(_desk(request).request_series, asked, holder_of(request))
        return _accepted(request, job)

    _add_queue_routes(api)


def _add_queue_routes(api: FastAPI) -> None:
    @api.get(_JOBS, summary="The queue of studies; status=dead is the dead-letter list", responses=PROBLEMS)
    async def jobs(
        request: Request,
        status: Annotated[Literal["receiving", "queued", "running", "done", "dead"] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> StudyJobs:
        return await anyio.to_thread.run_sync(partial(_listed, _desk(request), status, limit))

    @api.get(f"{_JOBS}/{{job}}", summary="A study: how far it is, and what was found", responses=PROBLEMS)
    async def job(request: Request, job: str) -> StudyJobAnswer:
        found = await anyio.to_thread.run_sync(_desk(request).store.get, job, sight_of(request))
        return _answer(found, full=True)

    @api.get(
        f"{_JOBS}/{{job}}/results",
        summary="The DICOM objects of a study that were stored nowhere else",
        response_class=Response,
        responses=PROBLEMS,
    )
    async def results(request: Request, job: str) -> Response:
        store = _desk(request).store
        found = await anyio.to_thread.run_sync(store.get, job, sight_of(request))
        if found.status != "done" or not found.size:
            raise UnknownJob(
                "no objects are kept of this job: it is not done, they are in an archive, or none were made"
            )
        kind, body = write_multipart(store.results(job))
        return StreamingResponse(body, media_type=kind)

    @api.post(f"{_JOBS}/{{job}}/retry", status_code=202, summary="Give a dead study another life", responses=PROBLEMS)
    async def retry(request: Request, job: str) -> Response:
        return _accepted(request, await anyio.to_thread.run_sync(_desk(request).store.requeue, job))

    @api.delete(
        f"{_JOBS}/{{job}}",
        status_code=204,
        response_class=Response,
        responses=PROBLEMS,
        summary="Cancel a study, and delete what is stored of it",
    )
    async def remove(request: Request, job: str) -> Response:
        await anyio.to_thread.run_sync(_desk(request).store.delete, job, sight_of(request))
        return Response(status_code=204)


def _desk(request: Request) -> StudyDesk:
    return request.app.state.desk


async def _contents(request: Request, limits: Limits, share: Share) -> AsyncGenerator[bytes]:
    """The DICOM files of a body, each as soon as it has arrived; what an archive unpacks to is taken of the share."""
    async with aclosing(_received(request, limits, share)) as contents:
        async for content in contents:
            note_file(request, content)
            yield content


async def _received(request: Request, limits: Limits, share: Share) -> AsyncGenerator[bytes]:
    kind = request.headers.get("content-type", "")
    if kind.split(";")[0].strip().lower() in ("application/zip", "application/x-zip-compressed"):
        unpacked = read_zip(await request.body(), limits, share.take)
        while (content := await anyio.to_thread.run_sync(next, unpacked, None)) is not None:
            yield content
        return
    if kind.split(";")[0].strip().lower() == DICOM:
        yield await request.body()
        return
    reader = MultipartReader(kind, limits)
    async for chunk in request.stream():
        for content in reader.feed(chunk):
            yield content
    reader.close()


async def _queue_upload(request: Request, desk: StudyDesk, wish: StudyWish, target: str) -> Response:
    """Nothing is confirmed before every instance is on disk."""
    upload = await anyio.to_thread.run_sync(desk.open_upload, wish, target, holder_of(request))
    with upload, desk.share() as share:
        count = 0
        async with aclosing(_contents(request, desk.limits, share)) as contents:
            async for content in contents:
                await anyio.to_thread.run_sync(upload.add, content)
                count += 1
        if not count:
            raise BrokenUpload("the body holds no file")
        return _accepted(request, await anyio.to_thread.run_sync(upload.submit))


async def _negotiated(request: Request, desk: StudyDesk, results: list[SeriesResult]) -> Response:
    """JSON, unless `Accept` names one of the DICOM types."""
    wanted = request.headers.get("accept", "").lower()
    if _DICOM_JSON in wanted:
        encoded = await anyio.to_thread.run_sync(_json_of, desk, results)
        return Response(encoded, media_type=_DICOM_JSON)
    if "multipart/related" in wanted or DICOM in wanted:
        kind, body = write_multipart(desk.encoded(results))
        return StreamingResponse(body, media_type=kind)
    summary = await anyio.to_thread.run_sync(desk.summary, request.state.request_id, results)
    return Response(summary.model_dump_json(), media_type="application/json")


def _json_of(desk: StudyDesk, results: Iterable[SeriesResult]) -> str:
    encoded: Iterator[bytes] = desk.encoded(results)
    return json.dumps(list(dicom_json(encoded)))


def _accepted(request: Request, job: StudyJob) -> Response:
    _desk(request).worker.look()
    headers = {"Location": f"{_JOBS}/{job.id}", "Retry-After": "1"}
    return Response(_answer(job, full=False).model_dump_json(), 202, headers, "application/json")


def _listed(desk: StudyDesk, status: StudyStatus | None, limit: int) -> StudyJobs:
    counts = {str(name): count for name, count in desk.store.counts().items()}
    return StudyJobs(counts=counts, jobs=[_answer(job, full=False) for job in desk.store.listing(status, limit)])


def _answer(job: StudyJob, *, full: bool) -> StudyJobAnswer:
    return StudyJobAnswer(
        id=job.id,
        status=job.status,
        stage=job.stage,
        attempts=job.attempts,
        progress=job.progress,
        created=datetime.fromtimestamp(job.created, UTC),
        changed=datetime.fromtimestamp(job.changed, UTC),
        due=datetime.fromtimestamp(job.due, UTC),
        url=f"{_JOBS}/{job.id}",
        result=StudyResult.model_validate_json(job.summary) if full and job.summary else None,
        problem=Problem.model_validate_json(job.problem) if job.problem else None,
    )
