"""The table of the service's settings, from what their classes say of them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo

from service.access.settings import PREFIX, AccessSettings
from service.settings import SHIPPED_MODELS, Settings
from training.markdown import table

_ATTRIBUTE = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", re.DOTALL | re.MULTILINE)


def all_settings() -> str:
    """Every environment variable."""
    rows = (*_rows(Settings), *_rows(AccessSettings))
    return _table([(f"{PREFIX}{name.upper()}", default, meaning) for name, default, meaning in rows])


def members(model: type[BaseModel]) -> str:
    """What an object consists of that is the value of one."""
    return _table(_rows(model))


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    return table(["", "where left out", "what it is"], [[f"`{name}`", *others] for name, *others in rows])


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each field that the class describes itself.

    Raises:
        KeyError: it does not describe a field of its own.
    """
    _, _, listed = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    meanings = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(listed)}
    inherited = {name for base in model.__bases__ for name in getattr(base, "model_fields", {})}
    for name, field in model.model_fields.items():
        if name not in inherited:
            yield name, _default(field), meanings[name]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value == SHIPPED_MODELS:
        return "the shipped ones"
    if value in (None, "", (), {}) or isinstance(value, BaseModel | SecretStr):
        return ""
    plain = TypeAdapter[object](object).dump_python(value, mode="json")
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"
