"""Making a study: every case goes through the pipeline once, and what came out is what all readers will see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.bundle import MANIFEST, sha256
from service.composing import JobHandle, Wish
from service.errors import InvalidParameter, UnreadableImage
from service.explainers import find_method
from service.frames import quantised
from service.images.reading import read_frames
from service.manifest import Manifest
from service.pipeline import Pipeline
from service.reader_study.cases import ListedCase, list_sha256
from service.reader_study.codes import lock_of, new_code
from service.reader_study.design import Design, PlannedCase, case_codes, schedule
from service.reader_study.pixels import PackedPixels, pack
from service.reader_study.plan import FrozenCase, StudyClass, StudyModel, StudyPlan
from service.reader_study.store import Study, StudyStore
from service.schemas import ImageAnswer, ImageFailure
from service.types import Frame
from service.uploads import Upload

_NOBODY_WAITS = JobHandle(progress=lambda share: None, cancelled=lambda: False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the coordinator decides. See `StudyPlan`; an empty `method` is the model's default."""

    name: str
    design: Design
    washout_days: float
    seed: int
    readers: tuple[str, ...]
    model: str
    method: str = ""


def classes_of(manifest: Manifest) -> tuple[StudyClass, ...]:
    """The model's classes; those that are not healthy count as disease."""
    return tuple(StudyClass(name=one.name, display=one.display, positive=not one.healthy) for one in manifest.labels)


def plan_of(terms: Terms, cases: Sequence[ListedCase], pipeline: Pipeline) -> StudyPlan:
    """The plan of a study.

    Raises:
        UnknownModel, UnknownMethod: as they say.
    """
    bundle = pipeline.registry.model(terms.model).bundle
    manifest = bundle.manifest
    model = StudyModel(id=manifest.id, version=manifest.version, digest=sha256(bundle.path / MANIFEST))
    return StudyPlan(
        name=terms.name,
        design=terms.design,
        washout_days=terms.washout_days if terms.design == "crossover" else 0,
        seed=terms.seed,
        readers=terms.readers,
        model=model,
        method=find_method(terms.method or manifest.default_explanation, manifest).name,
        classes=classes_of(manifest),
        cases=list_sha256(cases),
    )


def freeze_cases(
    store: StudyStore, study: Study, cases: Sequence[ListedCase], pipeline: Pipeline
) -> Iterator[ImageAnswer]:
    """Answer and store the cases that are not stored yet; yields after each, and may be stopped after any.

    Raises:
        InvalidParameter: a case cannot be used; those before it are kept.
    """
    stored = store.case_codes(study)
    codes = case_codes(len(cases), study.plan.seed)
    with start_blocking_portal() as portal:  # one event loop for all: the pipeline's queues belong to it
        for code, case in zip(codes, cases, strict=True):
            if code not in stored:
                frozen, pixels = _freeze(code, case, study.plan, pipeline, portal)
                store.add_case(study, frozen, pixels)
                yield frozen.answer


def open_study(store: StudyStore, study: Study) -> Mapping[str, str]:
    """Draw the schedule, and let the readers in; returns their codes by name, which are stored nowhere.

    Raises:
        StudyConflict: it is open already.
    """
    plan = study.plan
    planned = [
        PlannedCase(case.code, f"{case.truth}/{case.answer.label}", case.training) for case in store.cases(study)
    ]
    slots = schedule(planned, len(plan.readers), plan.design, plan.seed)
    codes = {name: new_code() for name in plan.readers}
    locks = {name: lock_of(code) for name, code in codes.items()}
    store.open(study, locks, dict(zip(plan.readers, slots, strict=True)))
    return codes


def _freeze(
    code: str, case: ListedCase, plan: StudyPlan, pipeline: Pipeline, portal: BlockingPortal
) -> tuple[FrozenCase, PackedPixels]:
    content = case.file.read_bytes()
    try:
        frames = read_frames(content, code)
    except UnreadableImage as error:
        raise InvalidParameter(f"cases.csv, line {case.line}: {error}") from None
    if len(frames) != 1:
        raise InvalidParameter(f"cases.csv, line {case.line}: {len(frames)} frames; a case is one image")
    frame = _cropped(frames[0], case)
    answer = portal.call(_answered, code, content if case.region is None else _png(frame), plan, pipeline)
    if isinstance(answer, ImageFailure):
        raise InvalidParameter(f"cases.csv, line {case.line}: {answer.error.detail}")
    return FrozenCase(code, case.sha256, case.truth, case.training, answer), pack(frame)


async def _answered(code: str, content: bytes, plan: StudyPlan, pipeline: Pipeline) -> ImageAnswer | ImageFailure:
    wish = Wish(method=plan.method)
    result = await pipeline.answer(code, plan.model.id, [Upload(code, content)], wish, job=_NOBODY_WAITS)
    return result.results[0]


def _cropped(frame: Frame, case: ListedCase) -> Frame:
    if case.region is None:
        return frame
    x, y, width, height = case.region
    if y + height > frame.pixels.shape[0] or x + width > frame.pixels.shape[1]:
        raise InvalidParameter(f"cases.csv, line {case.line}: region must lie in the image")
    part = np.s_[y : y + height, x : x + width]
    padding = None if frame.padding is None else frame.padding[part]
    return replace(frame, pixels=frame.pixels[part], padding=padding)


def _png(frame: Frame) -> bytes:
    """The part of an image that the model is to see; 16 bits where the source has more than 8."""
    pixels, _, _ = quantised(frame.pixels)
    done, content = cv2.imencode(".png", pixels)
    if not done:
        raise RuntimeError("PNG encoding failed")
    return content.tobytes()
