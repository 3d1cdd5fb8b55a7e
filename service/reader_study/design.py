"""Who reads which case in which arm, in which order: a function of the seed, and of nothing else.

`crossover`: every reader reads every case in both arms, in two periods with a washout between. In the first period each
reader has half of the cases with the explanation and half without; in the second the other way round, so that neither
learning nor fatigue falls to one arm (the counterbalanced design of Obuchowski, Academic Radiology 1995, and of the
FDA's guidance on reader studies, 2020). `parallel`: every reader is in one arm, and reads every case once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar, get_args

Arm = Literal["without", "with"]
Design = Literal["crossover", "parallel"]
ARMS: tuple[Arm, Arm] = get_args(Arm)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """A case, as far as the design looks at it.

    Attributes:
        code: what the case is called; it reveals nothing.
        stratum: cases of one stratum (the same truth, the same answer of the model) are spread evenly over the arms.
        training: read first, with feedback, and left out of the analysis.
    """

    code: str
    stratum: str
    training: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """One reading to be made: a case in an arm; `position` counts from 1 within the `period` (1 or 2)."""

    case: str
    arm: Arm
    period: int
    position: int
    training: bool


def case_codes(count: int, seed: int) -> list[str]:
    """Codes for the cases of a list: numbers in random order, so that a code says nothing of the list's order."""
    width = max(3, len(str(count)))
    return _shuffled([f"c{number:0{width}}" for number in range(1, count + 1)], seed, "codes")


def schedule(cases: Sequence[PlannedCase], readers: int, design: Design, seed: int) -> list[list[Slot]]:
    """The readings of every reader, in the order in which they are to be made.

    Balance, by construction: within a period of a crossover the arms of one reader differ by at most one case in every
    stratum; of the readers of one case, as many (give or take one) begin with the explanation as without; and as many
    readers have their block with explanations first. In a parallel design the arms differ by at most one reader.
    Training cases come first in every period, and are dealt out by the same rules among themselves.

    Args:
        cases: any order.
        readers: how many.
        design: crossover or parallel.
        seed: of everything random.

    Returns:
        One list for each reader.
    """
    ordered = sorted(cases, key=lambda case: case.code)
    places = _shuffled(range(readers), seed, "readers")
    one = _crossover if design == "crossover" else _parallel
    return [one(ordered, place, seed) for place in places]


def _crossover(cases: Sequence[PlannedCase], place: int, seed: int) -> list[Slot]:
    """Readers come in pairs: the second has with what the first has without."""
    pair, second = divmod(place, 2)
    arms: dict[str, Arm] = {}
    for training in (True, False):
        chosen = [case for case in cases if case.training is training]
        for case, half in _halves(chosen, seed, f"halves/{pair}/{training}"):
            arms[case.code] = ARMS[half ^ second]
    first = (pair + second) % 2  # the arm whose block opens the first period; the other one opens the second
    swapped: dict[str, Arm] = {code: _other(arm) for code, arm in arms.items()}
    return [
        *_period(cases, arms, ARMS[first], 1, seed, f"order/{place}/1"),
        *_period(cases, swapped, _other(ARMS[first]), 2, seed, f"order/{place}/2"),
    ]


def _parallel(cases: Sequence[PlannedCase], place: int, seed: int) -> list[Slot]:
    larger = _random(seed, "arm").randrange(2)  # which arm has one more, where the readers' number is odd
    arm = ARMS[(place + larger) % 2]
    return _period(cases, {case.code: arm for case in cases}, arm, 1, seed, f"order/{place}/1")


def _period(
    cases: Sequence[PlannedCase], arms: dict[str, Arm], opening: Arm, period: int, seed: int, stream: str
) -> list[Slot]:
    """Training first, then the blocks of the arms; shuffled within each."""
    shuffled = _shuffled(cases, seed, stream)
    shuffled.sort(key=lambda case: (not case.training, arms[case.code] != opening))
    return [
        Slot(case.code, arms[case.code], period, position, case.training) for position, case in enumerate(shuffled, 1)
    ]


def _other(arm: Arm) -> Arm:
    return "without" if arm == "with" else "with"


def _halves(cases: Sequence[PlannedCase], seed: int, stream: str) -> list[tuple[PlannedCase, int]]:
    """Deal cases out to two halves, stratum by stratum in turn: even in each stratum and in all, give or take one."""
    by_stratum = sorted(_shuffled(cases, seed, stream), key=lambda case: case.stratum)
    strata = _shuffled([list(group) for _, group in groupby(by_stratum, key=lambda case: case.stratum)], seed, stream)
    start = _random(seed, f"{stream}/start").randrange(2)
    dealt = [case for stratum in strata for case in stratum]
    return [(case, (start + number) % 2) for number, case in enumerate(dealt)]


def _random(seed: int, stream: str) -> random.Random:
    return random.Random(f"{seed}/{stream}")  # noqa: S311 - must be repeatable; nothing is kept secret by it


def _shuffled(values: Sequence[T], seed: int, stream: str) -> list[T]:
    return _random(seed, stream).sample(values, len(values))
