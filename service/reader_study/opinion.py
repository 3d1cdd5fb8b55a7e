"""What a reader says of a case, as a draft or as the final word."""

from __future__ import annotations

from typing import get_args

from pydantic import Field

from service.errors import InvalidParameter
from service.reader_study.design import Arm
from service.reader_study.plan import Item
from service.validation import Strict

ITEMS: tuple[Item, ...] = get_args(Item)


class Opinion(Strict):
    """A reader's judgement; a draft may lack any of it.

    `confidence` is 0 (a guess) to 100 (certain); `ratings` are 1 (not at all) to 5 (very much), of the explanation;
    `active_seconds` is how long the case was visible while the reader was there, as the browser measured it.
    """

    diagnosis: str | None = Field(default=None, max_length=64)
    confidence: int | None = Field(default=None, ge=0, le=100)
    ratings: dict[Item, int] = Field(default_factory=dict[Item, int])
    comment: str = Field(default="", max_length=2000)
    active_seconds: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)

    def says(self, other: Opinion) -> bool:
        """Whether both say the same, whatever time they took."""
        return self.model_copy(update={"active_seconds": other.active_seconds}) == other


class Draft(Opinion):
    """What a reader has filled in so far; of two drafts of one reading, the higher `revision` holds."""

    revision: int = Field(ge=1, lt=2**31)


def check_possible(opinion: Opinion, arm: Arm, classes: tuple[str, ...]) -> None:
    """Raises InvalidParameter where what is given cannot be: an unknown class, a rating outside 1 to 5 or arm."""
    if opinion.diagnosis is not None and opinion.diagnosis not in classes:
        raise InvalidParameter(f"diagnosis: must be one of {', '.join(classes)}")
    if opinion.ratings and arm == "without":
        raise InvalidParameter("ratings: no explanation is shown in this arm, so that there is none to rate")
    if any(not 1 <= rating <= 5 for rating in opinion.ratings.values()):
        raise InvalidParameter("ratings: each must be 1 to 5")


def check_complete(opinion: Opinion, arm: Arm, classes: tuple[str, ...]) -> None:
    """Raises InvalidParameter where something is missing, or cannot be; the comment is optional."""
    check_possible(opinion, arm, classes)
    missing = [name for name in ("diagnosis", "confidence") if getattr(opinion, name) is None]
    if arm == "with":
        missing += [f"ratings.{item}" for item in ITEMS if item not in opinion.ratings]
    if missing:
        raise InvalidParameter(f"missing: {', '.join(missing)}")
