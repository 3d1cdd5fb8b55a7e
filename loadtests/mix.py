"""The mix of users that loads the service: `mix.toml`, or the file that RADIOLUCENT_LOAD_MIX names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from service.validation import Strict, faults_of

SHIPPED = Path(__file__).with_name("mix.toml")
T = TypeVar("T", bound=BaseModel)
Format = Literal["png", "dicom"]


class FileError(ValueError):
    """A file that cannot be used; the message says where and why."""


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the first may not be larger than the second")
    return span


Seconds = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(_rising)]
Count = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AfterValidator(_rising)]
Share = Annotated[float, Field(ge=0, le=1)]
Methods = Annotated[tuple[str, ...], Field(min_length=1)]


class Kind(Strict):
    """What all kinds of users have: their `weight` among the others, seconds of thinking after an answer."""

    weight: int = Field(ge=1)
    think_s: Seconds


class ReadingRoom(Kind):
    """Single images; `overlay` is the share of requests that ask for a picture."""

    methods: Methods = ("default",)
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("png", "dicom")
    overlay: Share = 0.0


class PacsBurst(Kind):
    """Series of so many slices, by POST /v1/studies, or as the images of one POST /v1/explain."""

    slices: Count
    door: Literal["studies", "explain"] = "studies"

    @model_validator(mode="after")
    def _check(self) -> PacsBurst:
        if self.slices[1] > (200 if self.door == "studies" else 64):
            raise ValueError("slices: at most 200, and at most 64 through the door `explain`")
        return self


class ExplanationHeavy(Kind):
    """Methods beyond the forward pass; each ends after `deadline_ms` with what it has."""

    methods: Methods
    deadline_ms: int = Field(ge=1)


class MixedMethods(Kind):
    """Methods in turn, so many images a request; `predictions` is the share that wants no explanation."""

    methods: Methods = ("inline",)
    images: Count = (1, 1)
    predictions: Share = 0.0


class SlowClient(Kind):
    """Requests that take `send_s` seconds to arrive."""

    send_s: Seconds


class BadInput(Kind):
    """What must be refused."""


class Mix(Strict):
    """All kinds of users; a kind that is None does not come."""

    reading_room: ReadingRoom | None = None
    pacs_burst: PacsBurst | None = None
    explanation_heavy: ExplanationHeavy | None = None
    mixed_methods: MixedMethods | None = None
    slow_client: SlowClient | None = None
    bad_input: BadInput | None = None

    @model_validator(mode="after")
    def _check(self) -> Mix:
        if not self.kinds:
            raise ValueError("no kind of user comes")
        return self

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds that come, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: kind for name, kind in found.items() if kind is not None}

    @property
    def users(self) -> int:
        """So many that every kind comes as often as its weight says."""
        return sum(kind.weight for kind in self.kinds.values())


def read_toml(path: Path, model: type[T]) -> T:
    """A TOML file as what it must be.

    Raises:
        FileError: it cannot be read, is no TOML, or holds something else; the message names file, place and reason.
    """
    try:
        return model.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"{path}: {error}") from error
    except ValidationError as error:
        raise FileError(f"{path}: {faults_of(error, 'the file')}") from error


def read_mix(path: Path = SHIPPED) -> Mix:
    """The mix of a file.

    Raises:
        FileError: see `read_toml`.
    """
    return read_toml(path, Mix)
