"""The models of a service, loaded as its settings say; apart from `service.pipeline`, to begin while that loads."""

from __future__ import annotations

from pathlib import Path

from service.registry import Registry, load_models
from service.settings import Settings


def load_served(settings: Settings, shared: Path | None = None) -> Registry:
    """See `service.registry.load_models`.

    Args:
        settings: of the service.
        shared: folder of the server, where several workers share their weights (`service.shared_graphs`).
    """
    return load_models(
        settings.models,
        threads=settings.threads,
        device=settings.device,
        precision=settings.precision,
        keys=settings.model_keys,
        shared=shared,
    )
