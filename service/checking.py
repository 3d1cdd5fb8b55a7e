"""Whether a request can be answered as it is wished: asked before a file is read."""

from __future__ import annotations

from service.composing import Wish
from service.errors import InvalidParameter, TooManyImages, TooSlow
from service.explainers import check_target, find_method
from service.explainers.base import Method
from service.registry import Model, Registry
from service.settings import Settings

_EXPLAINING = 0.8  # of the time for an answer: its body is to be received, too, and maps are to be written


def check_request(
    registry: Registry, settings: Settings, model: str, files: int, wish: Wish, *, inline: bool
) -> Method | None:
    """The method that is wished, None where nothing is explained.

    Raises:
        UnknownModel, UnknownMethod, UnknownTarget, InvalidParameter, TooManyImages: as they say.
        TooSlow: see `check_cost`.
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
    check_cost(settings, served, method, wish, files, inline=inline)
    return method


def check_count(settings: Settings, files: int) -> None:
    """Raises TooManyImages."""
    if files > settings.max_images:
        raise TooManyImages(f"at most {settings.max_images} files in one request")


def check_cost(settings: Settings, served: Model, method: Method, wish: Wish, images: int, *, inline: bool) -> None:
    """Refuse what would not be answered: while somebody waits (`inline`), or before a job expires.

    Raises:
        TooSlow: explaining so many images would take too long, or until a deadline that is too far away.
    """
    if method.budget == 0:
        return
    targets = len(served.bundle.manifest.labels) if "all" in wish.target else 1
    seconds = images * served.costs.of(method, wish.options, targets) / 1000
    deadline = wish.options.deadline_ms
    if deadline is not None:
        seconds = min(seconds, deadline / 1000)
    instead = "for a job (POST /v1/explanations), for fewer images, a smaller budget, or "
    if not inline:
        limit, what, instead = settings.job_ttl_s, "a job is kept for", "for fewer images or a smaller budget"
    elif deadline is None:
        limit, what, instead = settings.inline_seconds, "an answer at once may take", f"{instead}set deadline_ms"
    else:
        limit, what = _EXPLAINING * settings.answer_s, "with a deadline an answer at once may take"
        instead += "a shorter deadline_ms"
    if seconds > limit:
        raise TooSlow(f"this would take about {seconds:.0f} s, and {what} {limit:g} s: ask {instead}")
