"""A stage of a request, as a metric and, where traces are on, as a span."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from time import perf_counter

from prometheus_client import Histogram

from service.observability.current import current
from service.observability.metrics import STAGE_SECONDS
from service.observability.traces import add_span


@cache
def _seconds(stage: str, model: str, method: str) -> Histogram:
    return STAGE_SECONDS.labels(stage, model, method)


def observe_stage(stage: str, model: str, method: str, start: float, end: float) -> None:
    """A stage that lasted from `start` to `end` (`time.perf_counter`)."""
    _seconds(stage, model, method).observe(end - start)
    add_span(stage, start, end, {"radiolucent.model": model, "radiolucent.method": method})


def observe_stages(model: str, method: str, start: float, seconds: Mapping[str, float]) -> None:
    """Stages that came one after another from `start` on, by the seconds that each took."""
    for stage, lasted in seconds.items():
        observe_stage(stage, model, method, start, start + lasted)
        start += lasted


def observe_received(model: str, method: str) -> None:
    """All of the current request is here: what came before its first stage; nothing outside of a request."""
    request = current()
    if request is not None:
        observe_stage("receive", model, method, request.start, perf_counter())


@contextmanager
def stage(name: str, model: str, method: str) -> Generator[None, None, None]:
    """What happens inside is the stage."""
    start = perf_counter()
    yield
    observe_stage(name, model, method, start, perf_counter())
