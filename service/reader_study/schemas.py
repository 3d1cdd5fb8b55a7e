"""What travels between the study and a reader's browser. Neither truth, nor the case's code, nor its file is in it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.reader_study.design import Arm, Design
from service.reader_study.opinion import Opinion
from service.reader_study.pixels import PixelLayout
from service.reader_study.plan import Item
from service.schemas import RESEARCH_NOTICE
from service.types import Assessable


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassChoice(_Answer):
    """A diagnosis to choose from."""

    name: str
    display: str


class ShownMap(_Answer):
    """The explanation: rows of cells, top first, that cover `region` (x, y, width, height in pixels) in equal parts."""

    method: str
    unit: str
    target: str
    shape: tuple[int, int]
    saliency: list[list[float]]
    region: tuple[float, float, float, float]


class ShownPrediction(_Answer):
    """What the model says; in the arm with explanation only."""

    label: str
    probabilities: dict[str, float]
    assessable: Assessable = Field(description="whether the model can answer for such an image")
    reasons: list[str] = Field(description="why it is not assessable or doubtful, and why the type is not assessed")
    map: ShownMap


class ShownCase(_Answer):
    """The case to be read. `id` is of this reading alone: the same case in the other arm has another."""

    id: str
    arm: Arm
    period: int
    position: int = Field(description="from 1, within the period")
    count: int = Field(description="cases of the period")
    training: bool
    pixels: PixelLayout = Field(description="how to read what GET .../pixels answers")
    revision: int = Field(description="of the draft; 0: there is none")
    draft: Opinion | None = Field(default=None, description="what was filled in before")
    prediction: ShownPrediction | None = None


class SessionAnswer(_Answer):
    """Where the reader is; `case` only from POST /v1/reading/next."""

    study: str
    reader: str
    state: Literal["reading", "washout", "finished"]
    done: int
    total: int
    design: Design
    washout_days: float
    opens_at: AwareDatetime | None = Field(default=None, description="when the washout ends")
    classes: tuple[ClassChoice, ...]
    items: tuple[Item, ...]
    case: ShownCase | None = None
    notice: str = RESEARCH_NOTICE


class DraftKept(_Answer):
    """The draft that is stored now; a later one than was sent where another window was faster."""

    revision: int


class AnswerSaved(_Answer):
    """The answer is stored, and final. `truth` is feedback on training cases; null of all others."""

    truth: str | None = None
