"""The composer: files in, answers out. Decoding and rendering run in threads, forward passes in the batcher."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeVar

import anyio
import anyio.to_thread

from service.answers import explanation_answer
from service.batching import BATCH_S, Answer, Batcher, Rows
from service.bundle import Kind, Manifest
from service.errors import (
    InvalidParameter,
    ModelFailed,
    Overloaded,
    TooManyImages,
    TooSlow,
    UnknownTarget,
    UnreadableImage,
)
from service.explainers import check_target, find_method, targets
from service.explainers.base import DEFAULTS, Method, Options, Question, run_together
from service.images.reading import read_frames
from service.observability import ERRORS, EVALUATIONS, IMAGES, logger
from service.observability.drift import observe_prediction, observe_unlike
from service.observability.stages import observe_stages
from service.prediction import Prediction, energy, predict
from service.preprocessing import prepare
from service.registry import Model, Registry, load_models
from service.rendering import overlay_file
from service.scheduling import EXPLANATION, JOB, PREDICTION, EngineThread, Lane, Waiting
from service.schemas import (
    ExplanationAnswer,
    FindingAnswer,
    ImageAnswer,
    ImageFailure,
    ModelName,
    Problem,
    Result,
)
from service.segmenter import Segmenter
from service.settings import Settings
from service.types import (
    Attribution,
    Encoding,
    Frame,
    Grey8,
    Item,
    Masks,
    Outputs,
    Picture,
    PreprocessingSpec,
    Target,
)

T = TypeVar("T")
R = TypeVar("R", bound=Rows)
_STEP_MS = 60.0  # that a step of a slow method holds the engine, where nobody makes it stop
PREDICT = "none"  # the method label of metrics where nothing is explained


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be explained.

    `method` None explains nothing, an empty one by the model's default method. `target` is one for all files, or one
    for each.
    """

    method: str | None = None
    target: tuple[str, ...] = ("predicted",)
    against: str | None = None
    overlay: bool = False
    picture: Picture = "png"
    saliency: Encoding = "numbers"
    options: Options = DEFAULTS


@dataclass(frozen=True, slots=True)
class JobHandle:
    """How work that nobody waits for tells its share done (0..1, from any thread), and hears that it may stop."""

    progress: Callable[[float], None]
    cancelled: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Read:
    """A frame of the file number `file`."""

    file: int
    frame: Frame
    item: Item


class Pipeline:
    """All models of this process with their batchers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry: Registry = load_models(
            settings.models,
            threads=settings.threads,
            device=settings.device,
            precision=settings.precision,
            keys=settings.model_keys,
        )
        self._engine = EngineThread()
        self._lanes = {priority: Lane(self._engine, priority) for priority in (PREDICTION, EXPLANATION, JOB)}
        self.batchers = {
            name: Batcher(
                name,
                model.engine.run,
                self._lanes[PREDICTION],
                max_batch=settings.max_batch,
                max_queue=settings.max_queue,
                cost=model.costs.forward / 1000,
            )
            for name, model in self.registry.models.items()
        }
        self.outliners: dict[str, Batcher[Masks]] = {
            name: Batcher(
                name,
                partial(_outlined, segmenter),
                self._lanes[PREDICTION],
                max_batch=settings.max_batch,
                max_queue=settings.max_queue,
            )
            for name, segmenter in self.registry.segmenters.items()
        }
        workers = settings.decode_threads or min(4, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._chunks = workers
        self._arriving = 0  # files that are being read
        self._besides = 0.0  # seconds of late between the forward passes and the answers
        self._explaining = 0

    async def answer(
        self,
        request_id: str,
        model: str,
        uploads: Sequence[Upload],
        wish: Wish,
        *,
        deadline: float | None = None,
        job: JobHandle | None = None,
    ) -> Result:
        """Predict, and explain where it is wished; one result for each image or frame, in order.

        Args:
            request_id: of the answer.
            model: id of the bundle.
            uploads: files.
            wish: what to explain.
            deadline: of the prediction, by `time.perf_counter`.
            job: set where nobody waits: it then yields to all other work.

        Raises:
            UnknownModel, UnknownMethod, UnknownTarget, TooManyImages, BudgetTooSmall, DeadlineTooShort, TooSlow,
                Overloaded, DeadlinePassed: the request as a whole. What is wrong with one file is in its result
                instead.
            ModelFailed: on every image of the request.
            Cancelled: `job` says so.
        """
        start = perf_counter()
        served = self.registry.model(model)
        manifest = served.bundle.manifest
        method = self.check(model, len(uploads), wish, inline=job is None)
        at_once = method is None or method.budget == 0
        if job is None:
            self.admit(deadline, len(uploads))
        with self.on_its_way(urgent=job is None and at_once):
            decoded = await self.read(uploads, manifest.preprocessing)
            readable = [row for row in decoded if isinstance(row, Read)]
            if method is not None and job is None:
                self._check_cost(served, method, wish, len(readable))
            decode_end = perf_counter()
            more = method.outputs if method is not None else frozenset[str]()
            pixels = [row.item.pixels for row in readable]
            by = None if deadline is None else deadline - self._besides
            computed = await self.batchers[model].run(pixels, more, deadline=by)
        decoded, answers = set_failed_aside(decoded, computed, request_id if job is None else request_id[:8])
        readable = [row for row in decoded if isinstance(row, Read)]
        inference_end = perf_counter()
        explaining = partial(_explain_all, readable, answers, wish, served, method, self.view(served, job), job)
        if not at_once:
            found = await self.explain_slowly(explaining, bounded=job is None)
        elif wish.overlay:
            found = await self.in_thread(explaining)
        else:  # some 0.05 ms an image: less than to wake a thread
            found = explaining()
        ready = iter(found)
        results = [next(ready) if isinstance(row, Read) else row for row in decoded]
        end = perf_counter()
        timing = {
            "decode": decode_end - start,
            "queue": max((a.queued for a in answers), default=0.0),
            "inference": max((a.computed for a in answers), default=0.0),
            "explanation": end - inference_end,
            "total": end - start,
        }
        if at_once:
            self._besides += 0.1 * (end - inference_end + decode_end - start - self._besides)
        observe(manifest.id, method.name if method else PREDICT, start, timing, results)
        return Result(
            request_id=request_id,
            model=ModelName(id=manifest.id, version=manifest.version),
            results=results,
            timing_ms={stage: round(seconds * 1000, 3) for stage, seconds in timing.items()},
        )

    @property
    def wait(self) -> float:
        """Seconds until the engine is through with the images that are here."""
        waiting = sum(batcher.backlog for batcher in (*self.batchers.values(), *self.outliners.values()))
        return waiting + self._arriving * self._cost

    @property
    def _cost(self) -> float:
        return max((batcher.cost for batcher in self.batchers.values()), default=0.0)

    def admit(self, deadline: float | None, files: int = 1) -> None:
        """Refuse at once what would wait too long; asked before a body is read, and again when it is.

        Args:
            deadline: that the caller gave, by `time.perf_counter`.
            files: of the request.

        Raises:
            Overloaded: with the seconds after which to try again.
        """
        wait = self.wait
        batch = min(wait, BATCH_S)  # its own is as full as others make it
        if deadline is not None and perf_counter() + wait + batch + files * self._cost + self._besides > deadline:
            raise Overloaded("what is waiting takes longer than the deadline allows", retry_after=wait)
        if wait > self.settings.max_wait_s:
            raise Overloaded("too much is waiting; try again later", retry_after=wait - self.settings.max_wait_s)

    def on_its_way(self, *, urgent: bool = True) -> AbstractContextManager[None]:
        """While a prediction is on its way; where it is `urgent`, slower work stands aside."""
        return self._engine.urgent() if urgent else nullcontext()

    def check(self, model: str, files: int, wish: Wish, *, inline: bool = True) -> Method | None:
        """The method that is wished, or what is wrong with the request; no file is read.

        Raises:
            UnknownModel, UnknownMethod, UnknownTarget, InvalidParameter, TooManyImages: as they say.
            TooSlow: where `inline` asks for it.
        """
        served = self.registry.model(model)
        manifest = served.bundle.manifest
        self.check_count(files)
        if wish.method is None:
            return None
        method = find_method(wish.method or manifest.default_explanation, manifest)
        if len(wish.target) not in (1, files):
            raise InvalidParameter(f"target: {len(wish.target)} targets for {files} files; give one, or one for each")
        for target in wish.target:
            check_target(target, wish.against, method, manifest)
        if inline:
            self._check_cost(served, method, wish, files)
        return method

    def check_count(self, files: int) -> None:
        """Raises TooManyImages."""
        if files > self.settings.max_images:
            raise TooManyImages(f"at most {self.settings.max_images} files in one request")

    async def read(self, uploads: Sequence[Upload], spec: PreprocessingSpec) -> list[Read | ImageFailure]:
        """Decode and prepare all frames of all files, in order; what is wrong with a file is its only result."""
        numbered = list(enumerate(uploads))
        share = -(-len(numbered) // self._chunks)
        chunks = [numbered[start : start + share] for start in range(0, len(numbered), share)]
        self._arriving += len(uploads)
        try:
            files = await asyncio.gather(*(self.in_thread(partial(_read_all, chunk, spec)) for chunk in chunks))
        finally:
            self._arriving -= len(uploads)
        return [row for rows in files for row in rows]

    def _check_cost(self, served: Model, method: Method, wish: Wish, images: int) -> None:
        if method.budget == 0 or wish.options.deadline_ms is not None:
            return
        targets = len(served.bundle.manifest.labels) if "all" in wish.target else 1
        seconds = images * served.costs.of(method, wish.options, targets) / 1000
        if seconds > self.settings.inline_seconds:
            raise TooSlow(
                f"this would take about {seconds:.0f} s, and an answer at once may take "
                f"{self.settings.inline_seconds:g} s: ask for a job (POST /v1/explanations), for fewer images, "
                "a smaller budget, or set deadline_ms"
            )

    def view(self, served: Model, job: JobHandle | None) -> Waiting:
        """The model as an explanation may use it: a lane of its own, and an end."""
        if job is None:
            return Waiting(served.engine, self._lanes[EXPLANATION], lambda: False)
        return Waiting(served.engine, self._lanes[JOB], job.cancelled)

    async def explain_slowly(self, explaining: Callable[[], T], *, bounded: bool) -> T:
        """In a thread that decoding does not need.

        Raises:
            Overloaded: too many wait already.
        """
        if bounded and self._explaining >= self.settings.max_explanations:
            raise Overloaded("too many explanations are waiting; try again later, or ask for a job")
        self._explaining += bounded
        try:
            return await anyio.to_thread.run_sync(explaining, abandon_on_cancel=True)
        finally:
            self._explaining -= bounded

    async def in_thread(self, call: Callable[[], T]) -> T:
        """In one of the threads for decoding and drawing, of which there are few."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, call)


def _outlined(segmenter: Segmenter, images: Grey8, _more: Collection[str]) -> Masks:
    return segmenter.run(images)


def _read_all(numbered: Sequence[tuple[int, Upload]], spec: PreprocessingSpec) -> list[Read | ImageFailure]:
    return [row for number, upload in numbered for row in _read(number, upload, spec)]


def _read(number: int, upload: Upload, spec: PreprocessingSpec) -> list[Read | ImageFailure]:
    try:
        frames = read_frames(upload.content, upload.name)
    except UnreadableImage as error:
        ERRORS.labels(error.kind).inc()
        return [ImageFailure(name=upload.name, error=Problem.of(error))]
    return [Read(number, frame, prepare(frame, spec)) for frame in frames]


def set_failed_aside(
    decoded: Sequence[Read | ImageFailure], computed: Sequence[Answer[R] | ModelFailed], logged_as: str
) -> tuple[list[Read | ImageFailure], list[Answer[R]]]:
    """Tell the images that a model computed from those that it could not, which the log names by request and place.

    Args:
        decoded: one row for each image or frame of the request.
        computed: one for each `Read` of them, in order.
        logged_as: the request's id, for the log; of a job's, which opens its result, no more than the beginning.

    Returns:
        `decoded` with a failure in the place of each image that was not computed, and the answers of the others.

    Raises:
        ModelFailed: none was computed.
    """
    found = iter(computed)
    rows: list[Read | ImageFailure] = []
    answers: list[Answer[R]] = []
    failed: list[ModelFailed] = []
    for place, row in enumerate(decoded):
        if isinstance(row, ImageFailure):
            rows.append(row)
            continue
        answer = next(found)
        if isinstance(answer, Answer):
            rows.append(row)
            answers.append(answer)
            continue
        logger.error("request %s: the model failed on image %d", logged_as, place, exc_info=answer.__cause__)
        rows.append(ImageFailure(name=row.frame.name, error=Problem.of(answer)))
        failed.append(answer)
    if failed and not answers:
        raise failed[0]
    ERRORS.labels(ModelFailed.kind).inc(len(failed))
    return rows, answers


def _explain_all(
    readable: Sequence[Read],
    answers: Sequence[Answer[Outputs]],
    wish: Wish,
    served: Model,
    method: Method | None,
    view: Waiting,
    job: JobHandle | None,
) -> list[ImageAnswer | ImageFailure]:
    """One result for each image, in order. Where a method asks more of the model, all images' questions go together."""
    manifest = served.bundle.manifest
    outputs = [answer.outputs for answer in answers]
    predictions = [predict(row.logits, manifest) for row in outputs]
    for made, row in zip(predictions, outputs, strict=True):
        observe_prediction(manifest.id, made.label, made.probabilities[made.label], energy(row.logits))
    if method is None:
        return [_answer(row, made, [], manifest) for row, made in zip(readable, predictions, strict=True)]
    asked = [_targets(wish, row.file, made.label, manifest) for row, made in zip(readable, predictions, strict=True)]
    questions = [
        Question(row.item.pixels, output, wanted)
        for row, output, wanted in zip(readable, outputs, asked, strict=True)
        if not isinstance(wanted, UnknownTarget)
    ]
    told = job.progress if job else lambda share: None
    each = served.costs.gradient if method.gradients else served.costs.forward
    batch = max(1, min(64, int(_STEP_MS / each)))
    found = iter(run_together(method, questions, view, wish.options, batch=batch, progress=told))
    results: list[ImageAnswer | ImageFailure] = []
    for row, made, wanted in zip(readable, predictions, asked, strict=True):
        if isinstance(wanted, UnknownTarget):
            ERRORS.labels(wanted.kind).inc()
            results.append(ImageFailure(name=row.frame.name, error=Problem.of(wanted)))
            continue
        attributions = next(found)
        EVALUATIONS.labels(manifest.id, method.name).inc(sum(a.evaluations for a in attributions))
        shown = [_explanation(row, attribution, manifest, wish) for attribution in attributions]
        results.append(_answer(row, made, shown, manifest))
    return results


def _targets(wish: Wish, file: int, predicted: str, manifest: Manifest) -> tuple[Target, ...] | UnknownTarget:
    try:
        return targets(wish.target[file if len(wish.target) > 1 else 0], wish.against, predicted, manifest)
    except UnknownTarget as error:
        return error


def _answer(
    row: Read, prediction: Prediction, explanations: list[ExplanationAnswer], manifest: Manifest
) -> ImageAnswer:
    region = row.item.region
    return ImageAnswer(
        name=row.frame.name,
        label=prediction.label,
        probabilities=prediction.probabilities,
        findings={f.name: FindingAnswer(probability=f.probability, present=f.present) for f in prediction.findings},
        region=(region.x, region.y, region.width, region.height),
        explanations=explanations,
        warnings=[*row.frame.warnings, *kind_warnings(row.frame, manifest.kind)],
    )


def _explanation(row: Read, attribution: Attribution, manifest: Manifest, wish: Wish) -> ExplanationAnswer:
    picture = overlay_file(row.frame, row.item.region, attribution, wish.picture) if wish.overlay else None
    return explanation_answer(attribution, manifest, picture, wish.saliency)


def kind_warnings(frame: Frame, kind: Kind) -> list[str]:
    """What speaks against this frame being of the kind that the model was made for."""
    warnings: list[str] = []
    if frame.modality is not None and frame.modality not in kind.modalities:
        observe_unlike("modality")
        expected = " or ".join(kind.modalities)
        warnings.append(
            f"not of this model's kind: the header gives another modality than {expected}; "
            "do not rely on the prediction"
        )
    if frame.colour > kind.largest_colour:
        observe_unlike("colour")
        warnings.append(
            f"not of this model's kind: a colour image, and the model is for {kind.description}; "
            "do not rely on the prediction"
        )
    return warnings


def observe(model: str, method: str, start: float, timing: dict[str, float], results: Sequence[object]) -> None:
    """Count what a request, begun at `start` (`time.perf_counter`), took and gave."""
    observe_stages(model, method, start, {stage: lasted for stage, lasted in timing.items() if stage != "total"})
    failed = sum(isinstance(result, ImageFailure) for result in results)
    IMAGES.labels(model, method, "ok").inc(len(results) - failed)
    IMAGES.labels(model, method, "failed").inc(failed)
