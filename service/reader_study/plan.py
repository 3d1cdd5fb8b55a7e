"""What a study is, and a case of it: the values that are fixed when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from service.reader_study.design import Design
from service.schemas import ImageAnswer
from service.validation import Strict

Item = Literal["clear", "plausible", "relevant", "useful", "trust"]
ReaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,23}$")]


class StudyClass(Strict):
    """A class that readers choose from; `positive` ones count as disease."""

    name: str
    display: str
    positive: bool


class StudyModel(Strict):
    """The bundle whose answers are shown; `digest` is the SHA-256 of its manifest, which holds those of its files."""

    id: str
    version: str
    digest: str


class StudyPlan(Strict):
    """Everything that a study is made from. A study of the same name made from another plan is another study.

    `cases` is the SHA-256 over the list of cases: the files' digests with truth, training and region.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")
    design: Design
    washout_days: float = Field(ge=0, le=3650)
    seed: int = Field(ge=0, lt=2**63)
    readers: tuple[ReaderName, ...] = Field(min_length=1, max_length=500)
    model: StudyModel
    method: str
    classes: tuple[StudyClass, ...]
    cases: str

    @field_validator("readers")
    @classmethod
    def _once(cls, readers: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(readers)) != len(readers):
            raise ValueError("names repeat")
        return readers

    def class_names(self) -> tuple[str, ...]:
        """In the model's order."""
        return tuple(each.name for each in self.classes)


@dataclass(frozen=True, slots=True)
class FrozenCase:
    """A case with the model's answer, as every reader will see it.

    Attributes:
        code: reveals nothing.
        file_sha256: of the coordinator's file, which is how the case is found again; its name is not kept.
        truth: a class; the readers' browsers never get it before the answer to a training case is saved.
        training: read first, with feedback.
        answer: of the pipeline, with one explanation.
    """

    code: str
    file_sha256: str
    truth: str
    training: bool
    answer: ImageAnswer
