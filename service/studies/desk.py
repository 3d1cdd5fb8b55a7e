"""Where studies arrive, from whichever door, and answers leave: the parts of the study path put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from threading import Event
from typing import TYPE_CHECKING

import anyio.to_thread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from service.answers import assessed_fields, explanation_answer, finding_answers
from service.composing import JobHandle
from service.deidentify import deidentify
from service.dicomweb.archives import find_archive
from service.dicomweb.client import fetch_series, store_instances
from service.dicomweb.multipart import Limits
from service.instance_file import InstanceFile
from service.observability import hashed_uid
from service.orientation import plane_of
from service.pipeline import Pipeline
from service.room import Share
from service.schemas import ModelName
from service.series.answer import SeriesAnswer
from service.series.reading import Series
from service.series.selection import read_rules
from service.settings import Settings
from service.site_key import read_site_key
from service.studies.answering import SeriesResult, StudyWish, answer_studies, check_wish
from service.studies.queue import Made, Steps, StudyWorker
from service.studies.rows import StudyJob, StudyRequest
from service.studies.schemas import (
    LeftOutAnswer,
    MismatchAnswer,
    ModelAnswer,
    ObjectAnswer,
    SeriesFindingAnswer,
    SeriesRequest,
    SeriesResultAnswer,
    SliceAnswer,
    StudyResult,
)
from service.studies.scp import Scp
from service.studies.store import StudyStore
from service.studies.upload import Upload, key_of

if TYPE_CHECKING:
    from service.dicom_results.results import Results


class StudyDesk:
    """Rules, archives, queue and worker of this process.

    Args:
        settings: of the service.
        pipeline: with the models.
        has_port: whether this process listens for C-STORE, where that is configured.

    Raises:
        RulesError: the rules file cannot be used.
        UnknownSource: results of the C-STORE door are to go to an archive that is not configured.
        UnknownModel, UnknownMethod, UnknownTarget: what is asked of its series; see `check_wish`.
    """

    def __init__(self, settings: Settings, pipeline: Pipeline, *, has_port: bool = True) -> None:
        self.settings, self._pipeline = settings, pipeline
        self.rules = read_rules(settings.rules, pipeline.registry.models)
        self.limits = Limits(total_bytes=settings.max_study_mib * 2**20)
        self.store = StudyStore(
            settings.jobs_database,
            settings.study_folder,
            lease=settings.job_lease_s,
            ttl=settings.study_ttl_s,
            limit=settings.max_studies,
        )
        self._site_key = read_site_key(settings.site_key)
        self.worker = StudyWorker(self.store, Steps(self._fetch, self._answer, self._store))
        self._scp = Scp(settings.scp, self.store, self._site_key) if settings.scp.enabled and has_port else None
        if settings.scp.enabled:
            find_archive(settings.archives, settings.scp.target)
            asked = settings.scp.options
            self.wish(asked.model, asked.method, asked.target, asked.kinds)

    def start(self) -> None:
        """Begin to work, in the running event loop, and to listen where that is configured."""
        self.worker.start()
        if self._scp is not None:
            self._scp.start()

    async def stop(self) -> None:
        """Give up: jobs in hand go back to the queue, what was confirmed to a sender stays."""
        if self._scp is not None:
            await anyio.to_thread.run_sync(self._scp.stop)
        await self.worker.stop()

    def wish(self, model: str, method: str, target: str, kinds: tuple[str, ...] | None) -> StudyWish:
        """What is asked, checked against the models.

        Raises:
            UnknownModel, UnknownMethod, UnknownTarget: see `check_wish`.
        """
        chosen = self.settings.results if kinds is None else kinds
        wish = StudyWish(
            model=model,
            method=method,
            target=target,
            kinds=chosen,  # pyright: ignore[reportArgumentType]
            making=self.settings.result_options,
        )
        check_wish(wish, self._pipeline.registry, self.rules)
        return wish

    def share(self) -> Share:
        """What a study that somebody sends may hold of this process' memory, beside its body."""
        return Share(self._pipeline.room)

    async def answer(self, contents: Iterable[bytes], wish: StudyWish, share: Share) -> list[SeriesResult]:
        """Answer while somebody waits.

        Raises:
            TooSlow: it would take too long to wait for.
            Overloaded: too many wait already, or hold the memory for it.
        """
        given_up = Event()
        view = partial(self._pipeline.view, job=None, given_up=given_up)
        registry, limit_s = self._pipeline.registry, self.settings.inline_seconds
        found = answer_studies(contents, wish, registry, self.rules, view, hold=share.take, limit_s=limit_s)
        return await self._pipeline.explain_slowly(partial(list, map(self._outgoing, found)), given_up, bounded=True)

    def request_series(self, asked: SeriesRequest, holder: str = "") -> StudyJob:
        """Accept a series of an archive; on disk when this returns.

        Raises:
            UnknownSource: the archive, or the one to store to, is not configured.
            UnknownModel, UnknownMethod, UnknownTarget: see `check_wish`.
            Overloaded: the queue is full.
            TooManyRequests: the caller's share of it is.
        """
        archives = self.settings.archives
        source = find_archive(archives, asked.source, asked.wado_url)
        target = source if asked.store is None else find_archive(archives, asked.store) if asked.store else ""
        self.wish(asked.model, asked.method, asked.target, asked.results)
        options = {"model": asked.model, "method": asked.method, "target": asked.target, "kinds": asked.results}
        request = StudyRequest(source, asked.study_uid, asked.series_uid, target, options, holder)
        return self.store.submit(request, key_of(request, self._site_key), self.label(asked.series_uid))

    def open_upload(self, wish: StudyWish, target: str, holder: str = "") -> Upload:
        """An upload into the queue, whose results go to an archive.

        Raises:
            UnknownSource: it is not configured.
            Overloaded: the queue is full.
            TooManyRequests: the caller's share of it is.
        """
        options = {"model": wish.model, "method": wish.method, "target": wish.target, "kinds": list(wish.kinds)}
        name = find_archive(self.settings.archives, target)
        return Upload(self.store, StudyRequest(target=name, options=options, holder=holder), self._site_key)

    def label(self, uid: str) -> str:
        """What logs may hold of a UID."""
        return hashed_uid(uid, self._site_key)

    @staticmethod
    def encoded(results: Iterable[SeriesResult]) -> Iterator[bytes]:
        """The objects made, as files, one by one."""
        for result in results:
            for made in result.results:
                for ds in made.objects:
                    yield encode(ds)

    @staticmethod
    def summary(request_id: str, results: Iterable[SeriesResult]) -> StudyResult:
        """The answer as it travels over HTTP."""
        return StudyResult(request_id=request_id, series=[_series_result(result) for result in results])

    def _outgoing(self, result: SeriesResult) -> SeriesResult:
        """The same, its objects de-identified where the settings say so."""
        if not self.settings.deidentify:
            return result
        from service.dicom_results.report import report_texts

        made = tuple(
            replace(each, objects=[deidentify(ds, self._site_key, report_texts(answer)) for ds in each.objects])
            for answer, each in zip(result.answers, result.results, strict=True)
        )
        return replace(result, results=made)

    def _fetch(self, request: StudyRequest) -> Iterator[bytes]:
        return fetch_series(self.settings.archives[request.source], request.study, request.series, self.limits)

    async def _answer(self, request: StudyRequest, source: InstanceFile, handle: JobHandle) -> Made:
        asked = request.options  # all of them, but for jobs by C-STORE in a database of before
        kinds = asked.get("kinds")
        wish = self.wish(
            asked.get("model", ""),
            asked.get("method", ""),
            asked.get("target", "predicted"),
            None if kinds is None else tuple(kinds),
        )
        view = partial(self._pipeline.view, job=handle, given_up=Event())
        found = answer_studies(source, wish, self._pipeline.registry, self.rules, view, handle.progress)
        results = await anyio.to_thread.run_sync(partial(list, map(self._outgoing, found)))
        summary = await anyio.to_thread.run_sync(self.summary, "", results)
        return Made(self.encoded(results), summary.model_dump_json())

    def _store(self, request: StudyRequest, contents: Iterable[bytes]) -> None:
        store_instances(self.settings.archives[request.target], contents)


def encode(ds: Dataset) -> bytes:
    """A DICOM file (PS3.10)."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _series_result(result: SeriesResult) -> SeriesResultAnswer:
    series = result.series
    return SeriesResultAnswer(
        study=series.study,
        series=series.series,
        modality=series.modality,
        plane=plane_of(series.slices[0].orientation) if series.slices else None,
        slices=len(series.slices),
        answers=[_model_answer(*both) for both in zip(result.answers, result.results, strict=True)],
        mismatches=[
            MismatchAnswer(rule=one.rule, model=one.model, reasons=list(one.reasons))
            for one in result.selection.mismatches
        ],
        left_out=[
            LeftOutAnswer(sop_instance=one.sop_instance, frame=one.number, reason=one.reason) for one in series.left_out
        ],
        notes=list(series.notes),
    )


def _model_answer(answer: SeriesAnswer, made: Results) -> ModelAnswer:
    return ModelAnswer(
        model=ModelName(id=answer.manifest.id, version=answer.manifest.version),
        method=answer.method,
        label=answer.label,
        probabilities=answer.probabilities,
        findings={
            one.name: SeriesFindingAnswer(
                probability=one.probability, present=one.present, decision=one.decision, carriers=list(one.carriers)
            )
            for one in answer.findings
        },
        **assessed_fields(answer.assessment, answer.prediction_set),
        slices=_slices(answer.series, answer),
        objects=[
            ObjectAnswer(
                kind=UID(ds.SOPClassUID).keyword,
                sop_class=str(ds.SOPClassUID),
                sop_instance=str(ds.SOPInstanceUID),
                series=str(ds.SeriesInstanceUID),
            )
            for ds in made.objects
        ],
        notes=[*answer.notes, *made.notes],
    )


def _slices(series: Series, answer: SeriesAnswer) -> list[SliceAnswer]:
    return [
        SliceAnswer(
            sop_instance=str(place.header.get("SOPInstanceUID", "")),
            frame=place.number,
            label=found.prediction.label,
            probabilities=found.prediction.probabilities,
            findings=finding_answers(found.prediction),
            region=(found.region.x, found.region.y, found.region.width, found.region.height),
            unseen=found.unseen,
            **assessed_fields(found.assessment, found.prediction.prediction_set),
            explanation=explanation_answer(found.saliency, answer.manifest, None),
        )
        for place, found in zip(series.slices, answer.slices, strict=True)
    ]
