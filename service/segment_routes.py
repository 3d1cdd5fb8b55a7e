"""POST /v1/segment: outlines."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.responses import Response

from service.checking import check_count
from service.examples import SEGMENT_EXAMPLE
from service.forms import FORM, DeadlineField, ImagesForm, pipeline_of, read_uploads
from service.observability.stages import observe_received, stage
from service.problems import PROBLEMS
from service.schemas import SegmentationResult
from service.segmentation import METHOD, segment


class SegmentForm(ImagesForm):
    """What is to be outlined in which images."""

    mask: bool = Field(False, description="Add the mask as a PNG: 255 inside, the size of the source image.")


def add_segment_routes(api: FastAPI) -> None:
    """Add the route. `api.state.pipeline` must be set before the first request."""

    @api.post(
        "/v1/segment",
        summary="Outline what a segmentation model finds",
        response_model=SegmentationResult,
        responses={200: {"content": {"application/json": {"example": SEGMENT_EXAMPLE}}}, **PROBLEMS},
    )
    async def outline(  # pyright: ignore[reportUnusedFunction] - the route keeps it
        request: Request, form: Annotated[SegmentForm, FORM], deadline: DeadlineField
    ) -> Response:
        pipeline, model = pipeline_of(request), form.model
        pipeline.registry.segmenter(model)
        check_count(pipeline.settings, len(form.images))
        uploads = await read_uploads(request, model, form.images)
        observe_received(model, METHOD)
        result = await segment(pipeline, request.state.request_id, model, uploads, mask=form.mask, deadline=deadline)
        with stage("encode", model, METHOD):
            body = result.model_dump_json()
        return Response(body, media_type="application/json")
