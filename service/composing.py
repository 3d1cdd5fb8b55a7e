"""From what a model computed to one result for each image: predictions, maps, warnings, failures in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from service.answers import assessed_fields, explanation_answer, finding_answers
from service.assessment import Assessment, assess, unlike
from service.batching import Answer, Rows
from service.errors import InvalidParameter, ModelFailed, RequestError, UnknownTarget
from service.explainers import targets
from service.explainers.base import DEFAULTS, Method, Options, Question, run_together
from service.manifest import Kind, Manifest
from service.observability import ERRORS, EVALUATIONS, IMAGES, logger
from service.observability.drift import observe_assessment, observe_prediction, observe_unlike
from service.observability.stages import observe_stages
from service.orientation import plane_of
from service.prediction import Prediction, energy, predict
from service.registry import Model
from service.rendering import overlay_file
from service.scheduling import Waiting
from service.schemas import ExplanationAnswer, ImageAnswer, ImageFailure, Problem
from service.types import Attribution, Encoding, Frame, Item, Outputs, Picture, Target

R = TypeVar("R", bound=Rows)
_TOGETHER = 4  # images that are explained at once: they fill a batch, and a method may keep 20 MiB of masks for each


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


def explain_all(
    readable: Sequence[Read],
    answers: Sequence[Answer[Outputs]],
    wish: Wish,
    served: Model,
    method: Method | None,
    view: Waiting,
    job: JobHandle | None,
) -> list[ImageAnswer | ImageFailure]:
    """One result for each image, in order. Where a method asks more of the model, those of some images go together.

    Args:
        readable: the images that were computed.
        answers: their outputs, in order.
        wish: what to explain.
        served: the model.
        method: that is wished; None explains nothing.
        view: the model, as an explanation may use it.
        job: told how far it is, where nobody waits.

    Raises:
        DeadlineTooShort, BudgetTooSmall: of the method's.
        Cancelled: `view` says so.
    """
    manifest = served.bundle.manifest
    outputs = [answer.outputs for answer in answers]
    assessments = [assessed(r.frame, r.item, row, manifest) for r, row in zip(readable, outputs, strict=True)]
    predictions = [predict(row.logits, manifest, a.assessable) for row, a in zip(outputs, assessments, strict=True)]
    for made, row in zip(predictions, outputs, strict=True):
        observe_prediction(manifest.id, made.label, made.probabilities[made.label], energy(row.logits))
    if method is None:
        return [_answer(*each, []) for each in zip(readable, predictions, assessments, strict=True)]
    asked = [_targets(wish, row.file, made.label, manifest) for row, made in zip(readable, predictions, strict=True)]
    questions = [
        Question(row.item.pixels, output, wanted, row.item.turn)
        for row, output, wanted in zip(readable, outputs, asked, strict=True)
        if not isinstance(wanted, UnknownTarget)
    ]
    told = job.progress if job else lambda share: None
    found = iter(_explained(method, questions, view, wish.options, served.step(method), told))
    results: list[ImageAnswer | ImageFailure] = []
    for row, made, judged, wanted in zip(readable, predictions, assessments, asked, strict=True):
        if isinstance(wanted, UnknownTarget):
            results.append(_refused(row, wanted))
            continue
        attributions = next(found)
        EVALUATIONS.labels(manifest.id, method.name).inc(sum(a.evaluations for a in attributions))
        try:
            shown = [_explanation(row, attribution, manifest, wish) for attribution in attributions]
        except InvalidParameter as error:  # a frame too large for such a picture
            results.append(_refused(row, error))
            continue
        results.append(_answer(row, made, judged, shown))
    return results


def _refused(row: Read, error: RequestError) -> ImageFailure:
    ERRORS.labels(error.kind).inc()
    return ImageFailure(name=row.frame.name, error=Problem.of(error))


def _explained(
    method: Method,
    questions: Sequence[Question],
    view: Waiting,
    options: Options,
    batch: int,
    progress: Callable[[float], None],
) -> list[list[Attribution]]:
    """Attributions of each question, in order: a few images at a time, each with its share of what time is left."""
    end = None if options.deadline_ms is None else monotonic() + options.deadline_ms / 1000
    found: list[list[Attribution]] = []
    while len(found) < len(questions):
        done = len(found)
        part = questions[done : done + _TOGETHER]
        if end is not None:
            now = monotonic()
            seconds = (end - now) * len(part) / (len(questions) - done)
            options = options.model_copy(update={"deadline_ms": max(1, round(1000 * seconds))})
            view = view.until(now + seconds)

        def told(share: float, done: int = done, asked: int = len(part)) -> None:
            progress((done + share * asked) / len(questions))

        found += run_together(method, part, view, options, batch=batch, progress=told)
    return found


def _targets(wish: Wish, file: int, predicted: str, manifest: Manifest) -> tuple[Target, ...] | UnknownTarget:
    try:
        return targets(wish.target[file if len(wish.target) > 1 else 0], wish.against, predicted, manifest)
    except UnknownTarget as error:
        return error


def _answer(
    row: Read, prediction: Prediction, assessment: Assessment, explanations: list[ExplanationAnswer]
) -> ImageAnswer:
    region = row.item.region
    return ImageAnswer(
        name=row.frame.name,
        label=prediction.label,
        probabilities=prediction.probabilities,
        findings=finding_answers(prediction),
        region=(region.x, region.y, region.width, region.height),
        unseen=row.item.unseen,
        plane=plane_of(row.frame.orientation),
        **assessed_fields(assessment, prediction.prediction_set),
        explanations=explanations,
        warnings=[*row.frame.warnings, *assessment.warnings()],
    )


def _explanation(row: Read, attribution: Attribution, manifest: Manifest, wish: Wish) -> ExplanationAnswer:
    picture = overlay_file(row.frame, row.item.region, attribution, wish.picture) if wish.overlay else None
    return explanation_answer(attribution, manifest, picture, wish.saliency)


def assessed(frame: Frame, item: Item, outputs: Outputs, manifest: Manifest) -> Assessment:
    """Assess an image by what the model computed of it, and count the outcome.

    Args:
        frame: as it was decoded.
        item: what the model was given.
        outputs: of this image, with those that `manifest.always` names.
        manifest: of the model.
    """
    _count_unlike(frame, manifest.kind)
    made = assess(frame, item, outputs.more.get("gate"), manifest)
    observe_assessment(manifest.id, made.assessable)
    return made


def kind_warnings(frame: Frame, kind: Kind) -> list[str]:
    """Warn of what speaks against this frame being of the kind that the model was made for, and count it."""
    _count_unlike(frame, kind)
    return Assessment("no", tuple(unlike(frame, kind).values())).warnings()


def _count_unlike(frame: Frame, kind: Kind) -> None:
    for sign in unlike(frame, kind):
        observe_unlike(sign)


def observe(model: str, method: str, start: float, timing: dict[str, float], results: Sequence[object]) -> None:
    """Count what a request, begun at `start` (`time.perf_counter`), took and gave."""
    observe_stages(model, method, start, {stage: lasted for stage, lasted in timing.items() if stage != "total"})
    failed = sum(isinstance(result, ImageFailure) for result in results)
    IMAGES.labels(model, method, "ok").inc(len(results) - failed)
    IMAGES.labels(model, method, "failed").inc(failed)
