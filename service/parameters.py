"""Parameters that a route would pass over in silence are refused: a misspelt one, the first of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from fastapi import FastAPI, Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from service.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class _Accepted:
    """What a route accepts: parameters of its query, and which of them and of its form's fields may come repeatedly."""

    query: tuple[str, ...]
    repeated: frozenset[str]
    form: bool


def note_parameters(api: FastAPI) -> None:
    """Note what each route accepts, once all are there; `check_parameters` looks it up."""
    routes = (route for route in api.routes if isinstance(route, APIRoute) and route.include_in_schema)
    api.state.accepted = {route.endpoint: _accepted(route) for route in routes}


async def check_parameters(request: Request) -> None:
    """What every route of the API's document depends on; fields that a form does not have, it refuses (`Strict`).

    Raises:
        InvalidParameter: a parameter of the query that the route does not have, or one of query or form that comes
            twice and has one value.
    """
    accepted: _Accepted | None = request.app.state.accepted.get(request.scope["endpoint"])
    if accepted is None:  # a page
        return
    query = request.query_params.multi_items()
    for name, _ in query:
        if name not in accepted.query:
            there = f"there are {', '.join(accepted.query)}" if accepted.query else "there are none"
            fields = "; fields of the form belong into the body" if accepted.form else ""
            raise InvalidParameter(f"the address has a parameter that is none of this route: {there}{fields}")
    _check_once(query, accepted)
    if accepted.form:
        _check_once((await request.form()).multi_items(), accepted)  # FastAPI has parsed it


def _check_once(items: Iterable[tuple[str, Any]], accepted: _Accepted) -> None:
    for name, count in Counter(name for name, _ in items).items():
        if count > 1 and name not in accepted.repeated:
            raise InvalidParameter(f"{name}: sent {count} times; it has one value")


def _accepted(route: APIRoute) -> _Accepted:
    found = (field for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query))
    query = {field.alias: field.field_info.annotation for field in found}
    forms = [field.field_info for field in route.dependant.body_params if isinstance(field.field_info, params.Form)]
    fields: dict[str, Any] = dict(query)
    for form in forms:
        model: Any = form.annotation  # forms are models (`service.forms`)
        fields |= {name: field.annotation for name, field in model.model_fields.items()}
    return _Accepted(tuple(query), frozenset(name for name, kind in fields.items() if _is_list(kind)), bool(forms))


def _is_list(annotation: Any) -> bool:  # noqa: ANN401 - of any type
    return get_origin(annotation) is list or any(_is_list(part) for part in get_args(annotation))
