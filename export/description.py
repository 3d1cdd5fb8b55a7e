"""What people write about a model and no file knows: read from a TOML file, goes into the manifest and the card."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field

from service.manifest import CodedConcept, Kind, Label
from service.validation import Strict

SHIPPED = Path(__file__).parent / "descriptions"


class FindingDescription(Strict):
    """A finding, and the name of the report's operating point that decides whether it is present."""

    name: str
    display: str
    code: CodedConcept | None = None
    operating_point: str


class Description(Strict):
    """One model in words. `labels` must name the checkpoint's classes; their order there is the graph's."""

    id: str
    version: str
    title: str
    labels: tuple[Label, ...]
    findings: tuple[FindingDescription, ...] = ()
    kind: Kind
    training_data: str
    initial_weights: str | None = None
    intended_use: str
    limits: tuple[str, ...] = Field(min_length=1)
    licence: str
    references: tuple[str, ...] = ()


def load_description(path: Path) -> Description:
    """Read a description.

    Raises:
        FileNotFoundError: there is none.
        ValidationError: a field is wrong (pydantic's, naming every one).
    """
    with path.open("rb") as file:
        return Description.model_validate(tomllib.load(file))
