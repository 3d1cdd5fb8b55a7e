"""What a service offers to be loaded with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.payloads import uploads


@dataclass(frozen=True, slots=True)
class Offer:
    """A classifier, the modality it is for, its methods by tier."""

    model: str
    modality: str
    methods: Mapping[str, str]
    default: str

    def chosen(self, wanted: Sequence[str]) -> list[str]:
        """Those of the wanted methods that the model has; `default` and `inline` stand for what they mean."""
        named = {"default": [self.default], "inline": [name for name, tier in self.methods.items() if tier == "inline"]}
        return [name for want in wanted for name in named.get(want, [want]) if name in self.methods]


def offers_of(models: Mapping[str, Any]) -> list[Offer]:
    """The classifiers of GET /v1/models for which there are images to post."""
    return [
        Offer(
            model["id"],
            modality,
            {method["method"]: method["tier"] for method in model["explanations"]},
            model["default_explanation"],
        )
        for model in models["models"]
        if model["task"] == "classification"
        for modality in model["kind"]["modalities"]
        if modality in uploads()
    ]
