"""Means of maps that are drawn a few at a time, with their confidence intervals; nothing drawn is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.types import Float


class RunningMean:
    """The mean of maps `[H, W]`, in float64."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self._sum = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, maps: Float | NDArray[np.float64]) -> None:
        """Take in maps `[M, H, W]`."""
        self.count += len(maps)
        self._sum += maps.sum(axis=0, dtype=np.float64)
        self._squares += np.square(maps, dtype=np.float64).sum(axis=0)

    @property
    def value(self) -> Float:
        """The mean, float32 `[H, W]`."""
        return (self._sum / self.count).astype(np.float32)

    @property
    def half_width(self) -> Float | None:
        """Half of the mean's 95 % interval, float32 `[H, W]`; None where there is but one map."""
        if self.count < 2:
            return None
        variance = np.maximum(self._squares - self._sum**2 / self.count, 0) / (self.count - 1)
        return (1.96 * np.sqrt(variance / self.count)).astype(np.float32)
