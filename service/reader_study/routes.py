"""The HTTP API of readers: one case at a time, by code. `Authorization: Bearer CODE`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.responses import Response

from service.errors import UnknownReader
from service.explainers import METHODS
from service.page_routes import PageFiles
from service.parameters import check_parameters
from service.problems import PROBLEMS, problem
from service.reader_study.opinion import ITEMS, Draft, Opinion, check_complete, check_possible
from service.reader_study.readings import Reader, ReadingStore
from service.reader_study.schemas import (
    AnswerSaved,
    ClassChoice,
    DraftKept,
    SessionAnswer,
    ShownCase,
    ShownMap,
    ShownPrediction,
)
from service.reader_study.session import Place, Reading
from service.schemas import ImageAnswer

_PATH = "/v1/reading"
_PIXELS = "application/octet-stream"
_CASE = f"{_PATH}/cases/{{reading}}"
_ANSWERS: dict[int | str, dict[str, object]] = PROBLEMS | {
    status: problem(title)
    for status, title in {
        401: "The code is not valid",
        404: "No such reading",
        409: "The case is answered",
        422: "A field is missing or not valid",
    }.items()
}
_code = HTTPBearer(auto_error=False, description="The reader's code.")


class _ReadersRoute(APIRoute):
    """Looks at the code first: FastAPI reads and parses the body before anything that a route depends on."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As `APIRoute` has it."""
        answer = super().get_route_handler()

        async def to_readers(request: Request) -> Response:
            code = await _code(request)
            if code is None:
                raise UnknownReader("a reader's code is needed: Authorization: Bearer CODE")
            request.state.reader = await anyio.to_thread.run_sync(_store(request).reader, code.credentials)
            return await answer(request)

        return to_readers


async def _reader(request: Request) -> Reader:
    return request.state.reader


ReaderField = Annotated[Reader, Depends(_reader)]


def _reading(request: Request, reader: ReaderField, reading: str) -> Reading:
    return _store(request).reading(reader, reading)


ReadingField = Annotated[Reading, Depends(_reading)]


def add_reader_study_routes(api: FastAPI) -> None:
    """Add the page and its routes. `api.state.readings` must be set before the first request (`ReadingStore`)."""
    _add_page(api)
    depends = [Depends(_code), Depends(check_parameters)]  # the document names the code
    router = APIRouter(route_class=_ReadersRoute, dependencies=depends)

    @router.get(_PATH, response_model=SessionAnswer, responses=_ANSWERS, summary="Where the reader is in the study")
    def session(request: Request, reader: ReaderField) -> Response:
        return _fresh(_session(reader, _store(request).place(reader)))

    @router.post(
        f"{_PATH}/next",
        response_model=SessionAnswer,
        responses=_ANSWERS,
        summary="Show the next case, or the one that is not answered yet",
    )
    def following(request: Request, reader: ReaderField) -> Response:
        store = _store(request)
        place = store.begin(reader)
        answer = _session(reader, place)
        if place.current is not None:
            answer = answer.model_copy(update={"case": _case(store, reader, place.current, place.in_period)})
        return _fresh(answer)

    @router.get(
        f"{_CASE}/pixels",
        response_class=Response,
        responses={200: {"content": {_PIXELS: {}}}, **_ANSWERS},
        summary="The image of a case that is being read",
    )
    def pixels(request: Request, reader: ReaderField, reading: ReadingField) -> Response:
        headers = {"Cache-Control": "no-store", "Content-Encoding": "deflate"}
        return Response(_store(request).pixels(reader, reading), media_type=_PIXELS, headers=headers)

    @router.put(f"{_CASE}/draft", response_model=DraftKept, responses=_ANSWERS, summary="Keep what is filled in so far")
    def draft(request: Request, reader: ReaderField, reading: ReadingField, draft: Draft) -> DraftKept:
        check_possible(draft, reading.arm, reader.plan.class_names())
        return DraftKept(revision=_store(request).save_draft(reading, draft))

    @router.post(
        f"{_CASE}/answer",
        response_model=AnswerSaved,
        responses=_ANSWERS,
        summary="Save the answer, for good; sent again it changes nothing",
    )
    def answer(request: Request, reader: ReaderField, reading: ReadingField, opinion: Opinion) -> Response:
        check_complete(opinion, reading.arm, reader.plan.class_names())
        saved = _store(request).answer(reader, reading, opinion)
        return _fresh(AnswerSaved(truth=_store(request).truth(reader, saved)))

    api.routes.extend(router.routes)  # `include_router` would leave `api.routes` without them


def _add_page(api: FastAPI) -> None:
    files = PageFiles(Path(__file__).with_name("pages"))

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    for path in ("/study", "/study/"):
        api.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)
    api.mount("/study", files)


def _store(request: Request) -> ReadingStore:
    return request.app.state.readings


def _fresh(answer: SessionAnswer | AnswerSaved) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})


def _session(reader: Reader, place: Place) -> SessionAnswer:
    return SessionAnswer(
        study=reader.plan.name,
        reader=reader.name,
        state=place.state,
        done=place.done,
        total=place.total,
        design=reader.plan.design,
        washout_days=reader.plan.washout_days,
        opens_at=None if place.opens is None else datetime.fromtimestamp(place.opens, UTC),
        classes=tuple(ClassChoice(name=one.name, display=one.display) for one in reader.plan.classes),
        items=ITEMS,
    )


def _case(store: ReadingStore, reader: Reader, reading: Reading, count: int) -> ShownCase:
    found = store.answer_of_model(reader, reading)
    return ShownCase(
        id=reading.id,
        arm=reading.arm,
        period=reading.period,
        position=reading.position,
        count=count,
        training=reading.training,
        pixels=store.layout(reader, reading),
        revision=reading.revision,
        draft=Opinion.model_validate_json(reading.opinion) if reading.opinion else None,
        prediction=None if found is None else _prediction(found),
    )


def _prediction(found: ImageAnswer) -> ShownPrediction:
    (explanation,) = found.explanations
    assert isinstance(explanation.saliency, list)  # noqa: S101 - frozen as numbers
    shown = ShownMap(
        method=explanation.method,
        unit=METHODS[explanation.method].unit,
        target=explanation.target,
        shape=explanation.shape,
        saliency=explanation.saliency,
        region=found.region,
    )
    return ShownPrediction(
        label=found.label,
        probabilities=found.probabilities,
        assessable=found.assessable,
        reasons=found.reasons,
        map=shown,
    )
