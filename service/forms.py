"""The form fields that predicting and explaining have in common, and what becomes of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, Request, UploadFile

from service.access.audit import note_file, note_model
from service.explainers.base import Baseline, Options
from service.pipeline import Pipeline, Upload, Wish
from service.schemas import Problem

PROBLEM = "application/problem+json"
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": title, "content": {PROBLEM: {}}}
    for status, title in {
        400: "The request cannot be understood",
        404: "No such model",
        413: "Too many or too large files",
        422: "A parameter is not valid",
        500: "Our fault; the log has the same request id",
        503: "Too much is waiting",
    }.items()
}

ModelField = Annotated[str, Form(description="Bundle id, as GET /v1/models lists it.", examples=["brain-mri-resnet50"])]
ImagesField = Annotated[
    list[UploadFile], File(description="One to 64 files: PNG, JPEG or DICOM (each frame is answered).")
]


PREDICTED = ["predicted"]


def wish_of(
    method: Annotated[
        str, Form(description="An explanation method of the model; its `default_explanation` where left out.")
    ] = "",
    target: Annotated[
        list[str],
        Form(description="`predicted`, `all`, or a class: one for all files, or one for each, in order."),
    ] = PREDICTED,
    against: Annotated[
        str | None, Form(description="A class name: why the target and not this class? The maps show the difference.")
    ] = None,
    overlay: Annotated[bool, Form(description="Add a PNG with the evidence over the image.")] = False,
    baseline: Annotated[Baseline, Form(description="What takes the place of hidden pixels.")] = "blur",
    budget: Annotated[
        int | None,
        Form(
            ge=1,
            le=100_000,
            description="Most images that may go through the model to explain one; each method has a default.",
        ),
    ] = None,
    deadline_ms: Annotated[
        int | None,
        Form(ge=1, le=86_400_000, description="End with what there is after so many milliseconds of explaining."),
    ] = None,
    seed: Annotated[int, Form(ge=0, le=2**32 - 1, description="Of everything random.")] = 0,
) -> Wish:
    """The form fields of an explanation, as what the pipeline takes."""
    options = Options(baseline=baseline, budget=budget, deadline_ms=deadline_ms, seed=seed)
    return Wish(method, tuple(target), against, overlay, options)


async def read_uploads(request: Request, model: str, images: list[UploadFile]) -> list[Upload]:
    """The files, as they were sent to be seen by a model that there is."""
    uploads = [Upload(image.filename or f"image-{number}", await image.read()) for number, image in enumerate(images)]
    note_model(request, model, pipeline_of(request).registry.version(model))
    for upload in uploads:
        note_file(request, upload.content)
    return uploads


def pipeline_of(request: Request) -> Pipeline:
    """The pipeline of this process."""
    return request.app.state.pipeline
