"""How many users there are over the time of a run: `--shape`, or RADIOLUCENT_LOAD_SHAPE.

A shape is a function from the share of the run's time that has passed (0..1) to the share of `--users` that is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_STEPS = 5


def constant(_passed: float) -> float:
    """All, from beginning to end."""
    return 1.0


def steps(passed: float) -> float:
    """Five equal steps up: where does it begin to hurt?"""
    return (min(int(passed * _STEPS), _STEPS - 1) + 1) / _STEPS


def spike(passed: float) -> float:
    """A fifth of the users, and all of them in the middle fifth of the time: does it recover?"""
    return 1.0 if 0.4 <= passed < 0.6 else 0.2


def soak(passed: float) -> float:
    """Up within the first twentieth, down in the last, flat between: does anything leak?"""
    return max(0.0, min(1.0, passed * 20, (1 - passed) * 20))


def diurnal(passed: float) -> float:
    """A hospital's day: a quiet night, a peak before noon, a smaller one in the afternoon."""
    hour = 24 * passed
    morning, afternoon = (math.exp(-(((hour - peak) / 2.5) ** 2)) for peak in (10.5, 15.5))
    return min(1.0, 0.1 + 0.9 * max(morning, 0.8 * afternoon))


SHAPES: dict[str, Callable[[float], float]] = {
    shape.__name__: shape for shape in (constant, steps, spike, soak, diurnal)
}


def users_at(shape: str, seconds: float, run_time: float, users: int) -> int | None:
    """How many users there are `seconds` after the start, at least one; None where the run is over.

    Raises:
        KeyError: there is no such shape.
    """
    if seconds >= run_time:
        return None
    return max(1, round(users * SHAPES[shape](seconds / run_time)))
