"""The composer: files in, answers out. Decoding and rendering run in threads, forward passes in the batcher."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeVar

import anyio
import anyio.to_thread

from service.batching import Answer, Batcher
from service.bundle import Kind, Manifest
from service.errors import TooManyImages, UnreadableImage
from service.explainers import check_method, check_target, explain
from service.imaging import read_frames
from service.observability import ERRORS, IMAGES, STAGE_SECONDS
from service.prediction import predict
from service.preprocessing import prepare
from service.registry import Registry, load_models
from service.rendering import overlay_png
from service.schemas import (
    ExplanationAnswer,
    FindingAnswer,
    ImageAnswer,
    ImageFailure,
    ModelName,
    Problem,
    Result,
)
from service.settings import Settings
from service.types import Attribution, Frame, Item, Outputs

T = TypeVar("T")
PREDICT = "none"  # the method label of metrics where nothing is explained


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be explained; `method` None explains nothing."""

    method: str | None = None
    target: str = "predicted"
    overlay: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    frame: Frame
    item: Item


class Pipeline:
    """All models of this process with their batchers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry: Registry = load_models(settings.models, threads=settings.threads, device=settings.device)
        engine_thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self.batchers = {
            name: Batcher(
                name, model.engine.run, engine_thread, max_batch=settings.max_batch, max_queue=settings.max_queue
            )
            for name, model in self.registry.models.items()
        }
        self._threads: anyio.CapacityLimiter | None = None

    async def answer(self, request_id: str, model: str, uploads: Sequence[Upload], wish: Wish) -> Result:
        """Predict, and explain where it is wished; one result for each image or frame, in order.

        Raises:
            UnknownModel, UnknownMethod, UnknownTarget, TooManyImages, Overloaded: the request as a whole.
                What is wrong with one file is in its result instead.
        """
        start = perf_counter()
        manifest = self.registry.model(model).bundle.manifest
        self.check(model, len(uploads), wish)
        files = await asyncio.gather(*(self._in_thread(partial(_read, upload, manifest)) for upload in uploads))
        decoded = [row for rows in files for row in rows]
        readable = [row for row in decoded if isinstance(row, _Read)]
        decode_end = perf_counter()
        answers = await self.batchers[model].run([row.item.pixels for row in readable])
        inference_end = perf_counter()
        found = await self._in_thread(partial(_explain_all, readable, answers, wish, manifest))
        ready = iter(found)
        results = [next(ready) if isinstance(row, _Read) else row for row in decoded]
        end = perf_counter()
        timing = {
            "decode": decode_end - start,
            "queue": max((a.queued for a in answers), default=0.0),
            "inference": max((a.computed for a in answers), default=0.0),
            "explanation": end - inference_end,
            "total": end - start,
        }
        _observe(manifest.id, wish.method or PREDICT, timing, answers, results)
        return Result(
            request_id=request_id,
            model=ModelName(id=manifest.id, version=manifest.version),
            results=results,
            timing_ms={stage: round(seconds * 1000, 3) for stage, seconds in timing.items()},
        )

    def check(self, model: str, files: int, wish: Wish) -> None:
        """Raises UnknownModel, UnknownMethod, UnknownTarget or TooManyImages before any file is read."""
        manifest = self.registry.model(model).bundle.manifest
        if files > self.settings.max_images:
            raise TooManyImages(f"at most {self.settings.max_images} files in one request")
        if wish.method is not None:
            check_method(wish.method, manifest)
            check_target(wish.target, manifest)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self.settings.decode_threads)
        return await anyio.to_thread.run_sync(call, limiter=self._threads)


def _read(upload: Upload, manifest: Manifest) -> list[_Read | ImageFailure]:
    """Decode and prepare the frames of one file; what is wrong with it is its only result."""
    try:
        frames = read_frames(upload.content, upload.name)
    except UnreadableImage as error:
        ERRORS.labels(error.kind).inc()
        return [ImageFailure(name=upload.name, error=Problem.of(error))]
    return [_Read(frame, prepare(frame, manifest.preprocessing)) for frame in frames]


def _explain_all(
    readable: Sequence[_Read], answers: Sequence[Answer], wish: Wish, manifest: Manifest
) -> list[ImageAnswer]:
    return [_answer(row, answer.outputs, wish, manifest) for row, answer in zip(readable, answers, strict=True)]


def _answer(row: _Read, outputs: Outputs, wish: Wish, manifest: Manifest) -> ImageAnswer:
    prediction = predict(outputs.logits, manifest)
    attributions: list[Attribution] = []
    if wish.method is not None:
        attributions = explain(wish.method, outputs.cam, wish.target, prediction.label, manifest)
    region = row.item.region
    return ImageAnswer(
        name=row.frame.name,
        label=prediction.label,
        probabilities=prediction.probabilities,
        findings={f.name: FindingAnswer(probability=f.probability, present=f.present) for f in prediction.findings},
        region=(region.x, region.y, region.width, region.height),
        explanations=[_explanation(row, attribution, overlay=wish.overlay) for attribution in attributions],
        warnings=[*row.frame.warnings, *kind_warnings(row.frame, manifest.kind)],
    )


def _explanation(row: _Read, attribution: Attribution, *, overlay: bool) -> ExplanationAnswer:
    picture = overlay_png(row.frame, row.item.region, attribution) if overlay else None
    return ExplanationAnswer(
        method=attribution.method,
        target=attribution.target,
        shape=(attribution.values.shape[0], attribution.values.shape[1]),
        saliency=attribution.values.tolist(),
        exact=attribution.exact,
        overlay=base64.b64encode(picture).decode() if picture is not None else None,
    )


def kind_warnings(frame: Frame, kind: Kind) -> list[str]:
    """What speaks against this frame being of the kind that the model was made for."""
    warnings: list[str] = []
    if frame.modality is not None and frame.modality not in kind.modalities:
        expected = " or ".join(kind.modalities)
        warnings.append(
            f"not of this model's kind: the header gives another modality than {expected}; "
            "do not rely on the prediction"
        )
    if frame.colour > kind.largest_colour:
        warnings.append(
            f"not of this model's kind: a colour image, and the model is for {kind.description}; "
            "do not rely on the prediction"
        )
    return warnings


def _observe(
    model: str, method: str, timing: dict[str, float], answers: Sequence[Answer], results: Sequence[object]
) -> None:
    for stage, seconds in timing.items():
        if stage != "total":
            STAGE_SECONDS.labels(stage, model, method).observe(seconds)
    failed = sum(isinstance(result, ImageFailure) for result in results)
    IMAGES.labels(model, method, "ok").inc(len(answers))
    IMAGES.labels(model, method, "failed").inc(failed)
