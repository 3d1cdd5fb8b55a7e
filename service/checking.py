"""Whether a request can be answered as it is wished: asked before a file is read."""

from __future__ import annotations

from service.composing import Wish
from service.errors import InvalidParameter, TooManyImages, TooSlow
from service.explainers import check_target, find_method
from service.explainers.base import Method
from service.registry import Model, Registry
from service.settings import Settings


def check_request(
    registry: Registry, settings: Settings, model: str, files: int, wish: Wish, *, inline: bool
) -> Method | None:
    """The method that is wished, None where nothing is explained.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget, InvalidParameter, TooManyImages: as they say.
        TooSlow: where `inline`, so that somebody waits, asks for it.
    """
    served = registry.model(model)
    manifest = served.bundle.manifest
    check_count(settings, files)
    if wish.method is None:
        return None
    method = find_method(wish.method or manifest.default_explanation, manifest)
    if len(wish.target) not in (1, files):
        raise InvalidParameter(f"target: {len(wish.target)} targets for {files} files; give one, or one for each")
    for target in wish.target:
        check_target(target, wish.against, method, manifest)
    if inline:
        check_cost(settings, served, method, wish, files)
    return method


def check_count(settings: Settings, files: int) -> None:
    """Raises TooManyImages."""
    if files > settings.max_images:
        raise TooManyImages(f"at most {settings.max_images} files in one request")


def check_cost(settings: Settings, served: Model, method: Method, wish: Wish, images: int) -> None:
    """Raises TooSlow: explaining so many images would take longer than an answer at once may."""
    if method.budget == 0 or wish.options.deadline_ms is not None:
        return
    targets = len(served.bundle.manifest.labels) if "all" in wish.target else 1
    seconds = images * served.costs.of(method, wish.options, targets) / 1000
    if seconds > settings.inline_seconds:
        raise TooSlow(
            f"this would take about {seconds:.0f} s, and an answer at once may take "
            f"{settings.inline_seconds:g} s: ask for a job (POST /v1/explanations), for fewer images, "
            "a smaller budget, or set deadline_ms"
        )
