"""The form fields that predicting and explaining have in common, and what becomes of them.

Forms are models: FastAPI checks each as a whole, and names it in the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Form, Header, Request, UploadFile
from pydantic import Field

from service.access.audit import note_file, note_model
from service.composing import Wish
from service.explainers.base import Baseline, Options
from service.pipeline import Pipeline
from service.types import Encoding, Picture
from service.uploads import Upload
from service.validation import Strict

DEADLINE_HEADER = "X-Deadline-Ms"
ModelField = Annotated[
    str, Field(description="Bundle id, as GET /v1/models lists it.", examples=["brain-mri-resnet50"])
]
FORM = Form(media_type="multipart/form-data")


class ImagesForm(Strict):
    """What a model is to see."""

    model: ModelField
    images: list[UploadFile] = Field(
        min_length=1, description="One to 64 files: PNG, JPEG or DICOM (each frame is answered)."
    )


class WishForm(Strict):
    """What is to be explained."""

    method: str = Field("", description="An explanation method of the model; its `default_explanation` where left out.")
    target: list[str] = Field(
        ["predicted"], description="`predicted`, `all`, or a class: one for all files, or one for each, in order."
    )
    against: str | None = Field(
        None, description="A class name: why the target and not this class? The maps show the difference."
    )
    overlay: bool = Field(False, description="Add a picture with the evidence over the image.")
    picture: Picture = Field("png", description="Format of the overlay: WebP and JPEG are smaller, and lose a little.")
    saliency: Encoding = Field(
        "numbers", description="How the maps are written: rows of numbers, or base64 of little-endian values."
    )
    baseline: Baseline = Field("blur", description="What takes the place of hidden pixels.")
    budget: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Most images that may go through the model to explain one; each method has a default.",
    )
    deadline_ms: int | None = Field(
        None, ge=1, le=86_400_000, description="End with what there is after so many milliseconds of explaining."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of everything random.")

    def wish(self) -> Wish:
        """As the pipeline takes it."""
        options = Options(baseline=self.baseline, budget=self.budget, deadline_ms=self.deadline_ms, seed=self.seed)
        return Wish(self.method, tuple(self.target), self.against, self.overlay, self.picture, self.saliency, options)


class ExplainForm(WishForm, ImagesForm):
    """What is to be explained of which images."""


async def deadline_of(  # a coroutine though it waits for nothing: FastAPI runs plain functions in threads
    request: Request,
    _milliseconds: Annotated[
        int | None,
        Header(
            alias=DEADLINE_HEADER,
            ge=1,
            le=86_400_000,
            description="How long the caller waits for the prediction, from when the request's head is there. Refused "
            "at once (503) where that cannot be met, dropped (504) where it turns out later.",
        ),
    ] = None,
) -> float | None:
    """When the caller's patience ends, by `time.perf_counter`; the guard has read the header before the body."""
    return request.state.deadline


async def read_uploads(request: Request, model: str, images: list[UploadFile]) -> list[Upload]:
    """The files, as they were sent to be seen by a model that there is."""
    uploads = [Upload(image.filename or f"image-{number}", await image.read()) for number, image in enumerate(images)]
    note_model(request, model, pipeline_of(request).registry.version(model))
    for upload in uploads:
        note_file(request, upload.content)
    return uploads


DeadlineField = Annotated[float | None, Depends(deadline_of)]


def pipeline_of(request: Request) -> Pipeline:
    """The pipeline of this process."""
    return request.app.state.pipeline
