"""The HTTP API of jobs: explanations that take longer than a client may be kept waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.responses import Response

from service.access.holding import holder_of, sight_of
from service.forms import FORM, ExplainForm, pipeline_of, read_uploads
from service.jobs.store import Job, JobStore
from service.jobs.worker import JobWorker, request_of
from service.problems import PROBLEMS
from service.schemas import JobAnswer, Problem, Result

_PATH = "/v1/explanations"


def add_job_routes(api: FastAPI) -> None:
    """Add POST, GET and DELETE. `api.state.jobs` must be set before the first request (`JobStore`)."""

    @api.post(
        _PATH,
        status_code=202,
        response_model=JobAnswer,
        responses=PROBLEMS,
        summary="Explain in the background: answers a job",
    )
    async def create(request: Request, form: Annotated[ExplainForm, FORM]) -> Response:
        wish = form.wish()
        pipeline_of(request).check(form.model, len(form.images), wish, inline=False)
        files = [(upload.name, upload.content) for upload in await read_uploads(request, form.model, form.images)]
        asked = request_of(form.model, wish)
        job = await anyio.to_thread.run_sync(_store(request).add, asked, files, holder_of(request))
        _worker(request).look()
        headers = {"Location": f"{_PATH}/{job.id}", "Retry-After": "1"}
        return Response(_answer(job).model_dump_json(), 202, headers, "application/json")

    @api.get(
        f"{_PATH}/{{job}}",
        response_model=JobAnswer,
        responses=PROBLEMS,
        summary="A job: how far it is, and its result once it is done",
    )
    async def read(request: Request, job: str) -> Response:
        _worker(request).start()
        found = await anyio.to_thread.run_sync(_store(request).get, job, sight_of(request))
        headers = {"Cache-Control": "no-store"}
        return Response(_answer(found).model_dump_json(), 200, headers, "application/json")

    @api.delete(
        f"{_PATH}/{{job}}",
        status_code=204,
        response_class=Response,
        responses=PROBLEMS,
        summary="Cancel a job, and delete its images and its result",
    )
    async def remove(request: Request, job: str) -> Response:
        await anyio.to_thread.run_sync(_store(request).delete, job, sight_of(request))
        return Response(status_code=204)


def _store(request: Request) -> JobStore:
    return request.app.state.jobs


def _worker(request: Request) -> JobWorker:
    return request.app.state.job_worker


def _answer(job: Job) -> JobAnswer:
    answer = job.answer or ""
    return JobAnswer(
        id=job.id,
        status=job.status,
        progress=job.progress,
        created=datetime.fromtimestamp(job.created, UTC),
        expires=datetime.fromtimestamp(job.expires, UTC),
        url=f"{_PATH}/{job.id}",
        result=Result.model_validate_json(answer) if job.status == "done" else None,
        error=Problem.model_validate_json(answer) if job.status == "failed" else None,
    )
