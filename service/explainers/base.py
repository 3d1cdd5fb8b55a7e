"""What an explanation method is."""

from __future__ import annotations

from typing import Protocol

from service.bundle import Manifest
from service.types import Attribution, Float


class Explainer(Protocol):
    """A method: from one image's class activation maps to an attribution for one target class."""

    def __call__(self, cam: Float, target: int, manifest: Manifest) -> Attribution:
        """Explain one target.

        Args:
            cam: float32 `[K, h, w]`, signed.
            target: index of the target class.
            manifest: of the bundle that made the map.
        """
        ...
