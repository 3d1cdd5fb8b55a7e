"""Do the intervals hold what they promise? Many simulated studies, and how often each interval has the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from service.validation import Strict
from training.study.analysis import pooled_results, rating_means
from training.study.expected import recover
from training.study.readings import arrange
from training.study.simulate import Parameters, simulate


class Coverage(Strict):
    """Of 95 % intervals.

    `inside` is by figure the share of the studies in which the interval has the expected value; `defined` is in how
    many studies there is the figure at all.
    """

    parameters: Parameters
    first_seed: int
    studies: int
    inside: dict[str, float]
    defined: dict[str, int]


def coverage(parameters: Parameters, seeds: Iterable[int]) -> Coverage:
    """Simulate and analyse one study for each seed; there must be one at least."""
    inside: Counter[str] = Counter()
    defined: Counter[str] = Counter()
    done: list[int] = []
    for seed in seeds:
        readings = arrange(*simulate(parameters, seed))
        for row in recover(parameters, pooled_results(readings), rating_means(readings)):
            inside[row.figure] += row.inside
            defined[row.figure] += 1
        done.append(seed)
    shares = {figure: round(inside[figure] / count, 4) for figure, count in defined.items()}
    return Coverage(parameters=parameters, first_seed=done[0], studies=len(done), inside=shares, defined=dict(defined))
