"""Files in, outlines out: the way of `service.pipeline` with a segmentation model at its end."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from time import perf_counter

import cv2
import numpy as np

from service.batching import Answer
from service.checking import check_count
from service.composing import Read, kind_warnings, observe, set_failed_aside
from service.orientation import plane_of, turned_back
from service.outlines import contours, mask_on_frame
from service.pipeline import Pipeline
from service.schemas import ImageFailure, ModelName, OutlineAnswer, SegmentationResult
from service.segmenter import SegmentationManifest
from service.types import Masks
from service.uploads import Upload, budget_of

METHOD = "segment"  # the method label of metrics


async def segment(
    pipeline: Pipeline,
    request_id: str,
    model: str,
    uploads: Sequence[Upload],
    *,
    mask: bool = False,
    deadline: float | None = None,
) -> SegmentationResult:
    """Outline what the model finds; one result for each image or frame, in order.

    Args:
        pipeline: of this process.
        request_id: of the answer.
        model: id of the bundle.
        uploads: files.
        mask: add the mask as a PNG.
        deadline: of the forward pass, by `time.perf_counter`.

    Raises:
        UnknownModel, WrongTask, TooManyImages, Overloaded, DeadlinePassed: the request as a whole. What is wrong with
            one file is in its result instead.
        ModelFailed: on every image of the request.
    """
    start = perf_counter()
    manifest = pipeline.registry.segmenter(model).manifest
    check_count(pipeline.settings, len(uploads))
    pipeline.admission.admit(deadline, len(uploads))
    with pipeline.on_its_way():
        decoded = await pipeline.read(uploads, manifest.preprocessing, budget_of(None))
        readable = [row for row in decoded if isinstance(row, Read)]
        decode_end = perf_counter()
        computed = await pipeline.outliners[model].run([row.item.pixels for row in readable], deadline=deadline)
    decoded, answers = set_failed_aside(decoded, computed, request_id)
    readable = [row for row in decoded if isinstance(row, Read)]
    inference_end = perf_counter()
    found = iter(await pipeline.in_thread(partial(_outline_all, readable, answers, manifest, mask=mask)))
    results = [next(found) if isinstance(row, Read) else row for row in decoded]
    end = perf_counter()
    timing = {
        "decode": decode_end - start,
        "queue": max((a.queued for a in answers), default=0.0),
        "inference": max((a.computed for a in answers), default=0.0),
        "outline": end - inference_end,
        "total": end - start,
    }
    observe(model, METHOD, start, timing, results)
    return SegmentationResult(
        request_id=request_id,
        model=ModelName(id=manifest.id, version=manifest.version),
        results=results,
        timing_ms={stage: round(seconds * 1000, 3) for stage, seconds in timing.items()},
    )


def _outline_all(
    readable: Sequence[Read], answers: Sequence[Answer[Masks]], manifest: SegmentationManifest, *, mask: bool
) -> list[OutlineAnswer | ImageFailure]:
    return [_outline(row, answer.outputs, manifest, mask=mask) for row, answer in zip(readable, answers, strict=True)]


def _outline(row: Read, found: Masks, manifest: SegmentationManifest, *, mask: bool) -> OutlineAnswer:
    frame, region = row.frame, row.item.region
    height, width = frame.pixels.shape
    threshold = manifest.operating_point.threshold
    probabilities = turned_back(found.probabilities, row.item.turn)
    inside = mask_on_frame(probabilities, region, (height, width), threshold)
    area = int(inside.sum())
    return OutlineAnswer(
        name=frame.name,
        label=manifest.label.name,
        present=area > 0,
        peak=float(found.probabilities.max()),
        threshold=threshold,
        size=(width, height),
        region=(region.x, region.y, region.width, region.height),
        unseen=row.item.unseen,
        plane=plane_of(frame.orientation),
        contours=contours(probabilities, region, (height, width), threshold),
        area_pixels=area,
        area_mm2=None if frame.spacing is None else round(area * frame.spacing[0] * frame.spacing[1], 2),
        mask=_png(inside.astype(np.uint8) * 255) if mask else None,
        warnings=[*frame.warnings, *kind_warnings(frame, manifest.kind)],
    )


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    done, content = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError("PNG encoding failed")
    return base64.b64encode(content.tobytes()).decode()
