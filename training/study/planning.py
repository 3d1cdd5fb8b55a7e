"""The table of `python -m training study power`: power over numbers of readers and cases."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from service.validation import Strict
from training.study.power import Spread, needed_cases, power, spread_of_pilot, spread_of_shares
from training.study.readings import Readings
from training.study.records import StudyError


class Plan(Strict):
    """Power for readers by cases, and by readers the fewest cases that reach the goal (None: none do)."""

    change: float
    spread: Spread
    goal: float
    readers: tuple[int, ...]
    cases: tuple[int, ...]
    power: tuple[tuple[float, ...], ...]
    needed: dict[int, int | None]


def plan(
    *,
    without: float,
    with_: float,
    correlation: float,
    reader_sd: float,
    case_share: float,
    readers: Sequence[int],
    cases: Sequence[int],
    goal: float,
) -> Plan:
    """Plan from what is expected; see `spread_of_shares`.

    Raises:
        StudyError: no answers can be as expected.
    """
    try:
        spread = spread_of_shares(without, with_, correlation=correlation, reader_sd=reader_sd, case_share=case_share)
    except ValueError as error:
        raise StudyError(str(error)) from error
    return _plan(with_ - without, spread, readers, cases, goal)


def plan_of_pilot(pilot: Readings, *, readers: Sequence[int], cases: Sequence[int], goal: float) -> Plan:
    """Plan from a pilot study's change in accuracy and its spread, which a small pilot gives roughly only.

    Raises:
        StudyError: the pilot is not a crossover.
    """
    try:
        change, spread = spread_of_pilot(pilot)
    except ValueError as error:
        raise StudyError(str(error)) from error
    return _plan(change, spread, readers, cases, goal)


def _plan(change: float, spread: Spread, readers: Sequence[int], cases: Sequence[int], goal: float) -> Plan:
    return Plan(
        change=change,
        spread=spread,
        goal=goal,
        readers=tuple(readers),
        cases=tuple(cases),
        power=tuple(tuple(round(power(change, spread, r, c), 4) for c in cases) for r in readers),
        needed={r: needed_cases(change, spread, r, goal) for r in readers},
    )


def print_plan(found: Plan) -> None:
    """Print the table."""
    title = f"power to find a change of {found.change:+.3f} (two-sided, 5 %)"
    table = Table("readers", *(f"{count} cases" for count in found.cases), f"cases for {found.goal:.0%}", title=title)
    for count, row in zip(found.readers, found.power, strict=True):
        needed = found.needed[count]
        table.add_row(
            str(count), *(f"{value:.2f}" for value in row), "not within 5000" if needed is None else str(needed)
        )
    Console().print(table)
