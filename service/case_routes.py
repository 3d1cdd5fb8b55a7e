"""The HTTP API of what a reader looks at: frames to view, an example, and a report of one case on one page."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Request, UploadFile
from pydantic import Field
from starlette.responses import Response

from service.access.audit import note_file, note_model
from service.composing import Wish
from service.errors import InvalidParameter, ModelFailed, UnknownTarget
from service.forms import FORM, ModelField, WishForm, pipeline_of
from service.frames import FramesAnswer, frames_answer
from service.images.reading import read_frames
from service.problems import PROBLEMS
from service.room import Share
from service.schemas import ImageFailure
from service.uploads import Upload, budget_of
from service.validation import Strict

_ONE_FILE = "One file: PNG, JPEG or DICOM."


class FramesForm(Strict):
    """What is to be decoded."""

    image: UploadFile = Field(description=_ONE_FILE)


class ReportForm(WishForm):
    """What a report is to show."""

    model: ModelField
    image: UploadFile = Field(description=_ONE_FILE)
    frame: int = Field(1, ge=1, description="Which frame of the file.")


def add_case_routes(api: FastAPI) -> None:
    """Add the routes. `api.state.pipeline` must be set before the first request."""

    @api.post(
        "/v1/frames",
        summary="Decode a file: the frames as the models see them before cropping",
        response_model=FramesAnswer,
        responses=PROBLEMS,
    )
    async def frames(request: Request, form: Annotated[FramesForm, FORM]) -> Response:
        content = await form.image.read()
        note_file(request, content)
        body = await pipeline_of(request).in_thread(lambda: frames_answer(content).model_dump_json())
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    @api.post(
        "/v1/report",
        summary="Predict, explain, and put the case on one page",
        response_class=Response,
        responses={200: {"description": "PDF", "content": {"application/pdf": {}}}, **PROBLEMS},
    )
    async def report(request: Request, form: Annotated[ReportForm, FORM]) -> Response:
        body = await _report(request, form.model, await _upload(request, form.image), form.wish(), form.frame)
        return Response(body, media_type="application/pdf", headers={"Cache-Control": "no-store"})

    @api.get(
        "/v1/examples/series.zip",
        summary="A DICOM series made from one slice of a template, to try POST /v1/studies with",
        response_class=Response,
        responses={200: {"description": "Zip of DICOM instances", "content": {"application/zip": {}}}},
    )
    async def series(request: Request) -> Response:
        from service.example_series import example_series  # who looks at no example needs none

        return Response(await pipeline_of(request).in_thread(example_series), media_type="application/zip")


async def _upload(request: Request, image: UploadFile) -> Upload:
    upload = Upload("image", await image.read())
    note_file(request, upload.content)
    return upload


async def _report(request: Request, model: str, upload: Upload, wish: Wish, number: int) -> bytes:
    from service.report import ReportedCase, case_report  # fpdf is loaded with the first report

    pipeline = pipeline_of(request)
    pipeline.check(model, 1, wish)
    note_model(request, model, pipeline.registry.version(model))
    if wish.target == ("all",):
        raise InvalidParameter("target: a report shows one map; name one class, or `predicted`")
    with Share(pipeline.room) as share:
        budget = budget_of(share.take)
        frames = await pipeline.in_thread(lambda: read_frames(upload.content, upload.name, budget))
        if number > len(frames):
            raise InvalidParameter(f"frame: the file has {len(frames)}")
        result = await pipeline.answer(
            request.state.request_id, model, [upload], replace(wish, overlay=True, picture="png")
        )
        found = result.results[number - 1]
        if isinstance(found, ImageFailure):
            refused = UnknownTarget if found.error.status < HTTPStatus.INTERNAL_SERVER_ERROR else ModelFailed
            raise refused(found.error.detail)  # the prediction is what it is to be told from
        bundle = pipeline.registry.model(model).bundle
        case = ReportedCase(frames[number - 1], number, len(frames), found, bundle, result.request_id)
        return await pipeline.in_thread(lambda: case_report(case))
