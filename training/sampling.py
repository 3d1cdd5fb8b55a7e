"""What the batches of an epoch are made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import SamplingConfig
from training.datasets.prepared import Prepared
from training.painting import can_be_painted

_NEAR = 0.1  # of a volume's height: how near a paired slice mostly is


@dataclass(frozen=True, slots=True)
class Draw:
    """Image number `row`; `painted`: its lesion is to be painted out."""

    row: int
    painted: bool = False


class Sampler:
    """Draws rows of a training part, as a configuration says.

    Args:
        data: the training part.
        healthy: bool `[K]`, which classes are healthy.
        config: how.
    """

    def __init__(self, data: Prepared, healthy: NDArray[np.bool_], config: SamplingConfig) -> None:
        self._config = config
        self._data = data
        finding = ~healthy[data.labels]
        self._with = _groups(data, finding, config)
        self._without = _groups(data, ~finding, config)
        outlined = np.flatnonzero(finding & data.has_mask)
        self.paintable = np.array([row for row in outlined if can_be_painted(data.masks[row])], np.int64)
        self._pairs: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for row in np.flatnonzero(~finding).tolist():
            if not np.isnan(data.levels[row]):
                self._pairs[self._volume(row)].append(row)

    def draw(self, count: int, random: np.random.Generator) -> list[Draw]:
        """Draw the images of one batch; each with a finding is followed by those without that go with it."""
        config = self._config
        found = min(max(round(count * config.finding_share), 1), count) if self._with else 0
        if not self._without and not len(self.paintable):
            found = count
        draws = [Draw(_any(self._with, random)) for _ in range(found)]
        for place in range(count - found):
            if len(self.paintable) and (random.random() < config.painted or not self._without):
                draws.append(Draw(int(random.choice(self.paintable)), painted=True))
                continue
            partner = self._partner(draws[place].row, random) if place < found else None
            if partner is None or random.random() >= config.paired:
                partner = _any(self._without, random)
            draws.append(Draw(partner))
        return draws

    def _partner(self, row: int, random: np.random.Generator) -> int | None:
        """A slice without a finding of the same volume, mostly of a near level."""
        rows = self._pairs.get(self._volume(row), [])
        if not rows or np.isnan(self._data.levels[row]):
            return None
        distance = np.abs(self._data.levels[rows] - self._data.levels[row])
        weight = np.exp(-distance / _NEAR) + 0.02
        return int(random.choice(rows, p=weight / weight.sum()))

    def _volume(self, row: int) -> tuple[str, str, str]:
        return self._data.sources[row], self._data.groups[row], self._data.weightings[row]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows by group, and how often a group is drawn, summing to 1."""

    rows: list[NDArray[np.int64]]
    shares: NDArray[np.float64]


def _groups(data: Prepared, chosen: NDArray[np.bool_], config: SamplingConfig) -> _Groups | None:
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in np.flatnonzero(chosen).tolist():
        members[data.sources[row], data.weightings[row]].append(row)
    if not members:
        return None
    rows = [np.array(each, np.int64) for each in members.values()]
    weight = np.array([max(len(each), config.smallest) ** config.power for each in rows])
    return _Groups(rows, weight / weight.sum())


def _any(groups: _Groups | None, random: np.random.Generator) -> int:
    assert groups is not None  # the caller asks only for what there is  # noqa: S101
    return int(random.choice(groups.rows[int(random.choice(len(groups.rows), p=groups.shares))]))
