"""From the instances of studies to an answer for every series, and its DICOM objects.

    instances ──read_series──> Series ──select──> models ──answer_series──> SeriesAnswer ──make_results──> objects

All of it runs in threads, behind what somebody waits for: the forward passes line up on the engine thread a small
batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from service.composing import assessed
from service.dicom_results.options import DEFAULT_KINDS, Kind
from service.dicom_results.options import Options as ResultOptions
from service.errors import TooSlow, UnknownTarget
from service.explainers import check_target, find_method, targets
from service.explainers.base import DEFAULTS, Options, Question, run_together
from service.manifest import Manifest
from service.observability import BATCH_IMAGES, EVALUATIONS, IMAGES, QUEUE_SECONDS
from service.observability.drift import observe_prediction
from service.observability.stages import observe_stages, stage
from service.prediction import energy, predict
from service.preprocessing import prepare_series
from service.registry import Model, Registry
from service.rendering import on_frame
from service.scheduling import Waiting
from service.series.answer import SeriesAnswer, SlicePrediction
from service.series.pooling import Pooled, pool
from service.series.reading import Series, read_series
from service.series.selection import Rule, Selection, select
from service.types import Attribution, Item, Outputs, Target

if TYPE_CHECKING:
    from service.dicom_results.results import Results

_BATCH = 16  # slices in one forward pass: what an urgent prediction waits for at most


@dataclass(frozen=True, slots=True)
class StudyWish:
    """What is asked of a study.

    Attributes:
        model: id of the bundle that is to answer every series; empty: the rules choose.
        method: of the explanation; empty: each model's default.
        target: `predicted` (see `explained_label`), or a class.
        options: of the explanation.
        kinds: DICOM objects to make.
        making: how they are made.
    """

    model: str = ""
    method: str = ""
    target: str = "predicted"
    options: Options = DEFAULTS
    kinds: tuple[Kind, ...] = DEFAULT_KINDS
    making: ResultOptions = field(default_factory=ResultOptions)


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """What came of one series: an answer of each model that was chosen, with the objects made of it."""

    series: Series
    selection: Selection
    answers: tuple[SeriesAnswer, ...]
    results: tuple[Results, ...]


def check_wish(wish: StudyWish, registry: Registry, rules: Sequence[Rule]) -> None:
    """Refuse what no series could make right.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget: of the model that is asked for, or of every model that the rules
            can choose.
    """
    names = [wish.model] if wish.model else list(dict.fromkeys(rule.model for rule in rules))
    for name in names:
        manifest = registry.model(name).bundle.manifest
        method = find_method(wish.method or manifest.default_explanation, manifest)
        if wish.target == "all":
            raise UnknownTarget("one map is made for a series: name one class, or `predicted`")
        check_target(wish.target, None, method, manifest)


def answer_studies(
    contents: Iterable[bytes],
    wish: StudyWish,
    registry: Registry,
    rules: Sequence[Rule],
    view: Callable[[Model], Waiting],
    progress: Callable[[float], None] = lambda share: None,
    *,
    hold: Callable[[int], None] = lambda size: None,
    limit_s: float | None = None,
) -> Iterator[SeriesResult]:
    """Answer every series of some instances.

    Args:
        contents: DICOM files, of any number of series.
        wish: what is asked.
        registry: the models.
        rules: which of them answers what.
        view: a model as this work may use it.
        progress: told the share done, 0..1.
        hold: see `service.series.reading.read_series`.
        limit_s: seconds that the answer may be expected to take; None for any.

    Yields:
        One result for each series, also for those that no rule matches.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget, TooManyImages, BudgetTooSmall, DeadlineTooShort, Cancelled.
        TooSlow: beyond the limit; nothing was computed.
    """
    chosen: list[tuple[Series, Selection]] = []
    for series in read_series(contents, hold):
        selection = Selection((wish.model,), ()) if wish.model and series.slices else select(series, rules)
        chosen.append((series, selection))
    total = sum(len(series.slices) * len(selection.models) for series, selection in chosen) or 1
    _check_cost(chosen, wish, registry, limit_s)
    done = 0
    for series, selection in chosen:
        answers: list[SeriesAnswer] = []
        for name in selection.models:
            model = registry.model(name)
            before, share = done / total, len(series.slices) / total

            def told(part: float, before: float = before, share: float = share) -> None:
                progress(before + share * part)

            answers.append(answer_series(series, model, wish, view(model), told))
            done += len(series.slices)
        from service.dicom_results.results import make_results  # takes long to load, with the dictionary of codes

        results: list[Results] = []
        for answer in answers:
            with stage("encode", answer.manifest.id, answer.method):
                results.append(make_results(answer, wish.kinds, wish.making))
        yield SeriesResult(series, selection, tuple(answers), tuple(results))
    progress(1.0)


def _check_cost(
    chosen: Sequence[tuple[Series, Selection]], wish: StudyWish, registry: Registry, limit_s: float | None
) -> None:
    seconds = 0.0
    for series, selection in chosen:
        for model in map(registry.model, selection.models):
            manifest = model.bundle.manifest
            method = find_method(wish.method or manifest.default_explanation, manifest)
            seconds += len(series.slices) * model.costs.of(method, wish.options) / 1000
    if limit_s is not None and seconds > limit_s:
        raise TooSlow(
            f"this would take about {seconds:.0f} s, and an answer at once may take {limit_s:g} s: let the results be "
            "stored to an archive (the parameter store), or ask for a cheaper method"
        )


def answer_series(
    series: Series, model: Model, wish: StudyWish, view: Waiting, progress: Callable[[float], None]
) -> SeriesAnswer:
    """Predict every slice, pool, and explain every slice with the series' own target.

    Args:
        series: with at least one slice.
        model: that answers.
        wish: what is asked.
        view: the model, waiting for its turn.
        progress: told the share done, 0..1.
    """
    start = perf_counter()
    manifest = model.bundle.manifest
    method = find_method(wish.method or manifest.default_explanation, manifest)
    items = prepare_series([one.frame for one in series.slices], manifest.preprocessing)
    slow = 0.0 if method.budget == 0 else 1.0  # the share of the work that explaining is
    outputs: list[Outputs] = []
    prepared, before_all = perf_counter(), view.waited
    for first in range(0, len(items), _BATCH):
        pixels = np.stack([item.pixels for item in items[first : first + _BATCH]])[..., np.newaxis]
        before = view.waited
        found = view.run(pixels, manifest.always | method.outputs)
        BATCH_IMAGES.labels(manifest.id).observe(len(pixels))
        for _ in pixels:
            QUEUE_SECONDS.labels(manifest.id).observe(view.waited - before)
        outputs += [found.row(row) for row in range(len(pixels))]
        progress(len(outputs) / len(items) * (1 - slow * 0.9))
    computed, queued = perf_counter(), view.waited - before_all
    assessments = [
        assessed(one.frame, item, each, manifest) for one, item, each in zip(series.slices, items, outputs, strict=True)
    ]
    pooled = pool(np.stack([each.logits for each in outputs]), manifest, assessments)
    (target,) = targets(wish.target, None, explained_label(pooled, manifest), manifest)
    saliency: list[Attribution] = []
    for first in range(0, len(items), _BATCH):
        questions = _questions(items[first : first + _BATCH], outputs[first : first + _BATCH], target)
        saliency += [found for (found,) in run_together(method, questions, view, wish.options)]
        progress(1 - slow * 0.9 * (1 - len(saliency) / len(items)))
    volume = [
        on_frame(found.values, item.region, one.frame.pixels.shape)
        for found, item, one in zip(saliency, items, series.slices, strict=True)
    ]
    slices = tuple(
        SlicePrediction(predict(each.logits, manifest, judged.assessable), item.region, found, judged, item.unseen)
        for each, item, found, judged in zip(outputs, items, saliency, assessments, strict=True)
    )
    for each, one in zip(outputs, slices, strict=True):
        made = one.prediction
        observe_prediction(manifest.id, made.label, made.probabilities[made.label], energy(each.logits))
    timing = {
        "decode": prepared - start,
        "queue": queued,
        "inference": computed - prepared - queued,
        "explanation": perf_counter() - computed,
    }
    observe_stages(manifest.id, method.name, start, timing)
    IMAGES.labels(manifest.id, method.name, "ok").inc(len(slices))
    EVALUATIONS.labels(manifest.id, method.name).inc(sum(each.evaluations for each in saliency))
    return SeriesAnswer(
        series=series,
        manifest=manifest,
        method=method.name,
        slices=slices,
        findings=pooled.findings,
        label=pooled.label,
        probabilities=pooled.probabilities,
        saliency=np.stack(volume),
        assessment=pooled.assessment,
        prediction_set=pooled.prediction_set,
        notes=pooled.notes,
    )


def explained_label(pooled: Pooled, manifest: Manifest) -> str:
    """The class that the maps of a series are about where none is asked for.

    It is the label, unless a finding that the label is not one of is present or not decided (its operating point lies
    below one half): then the map must be evidence for the finding, and the class is the most probable one of it.
    """
    labels = {finding.name: finding.labels for finding in manifest.findings}
    for found in pooled.findings:
        if found.decision in ("present", "not decided") and pooled.label not in labels[found.name]:
            return max(labels[found.name], key=pooled.probabilities.__getitem__)
    return pooled.label


def _questions(items: Sequence[Item], outputs: Sequence[Outputs], target: Target) -> list[Question]:
    return [Question(item.pixels, each, (target,), item.turn) for item, each in zip(items, outputs, strict=True)]
