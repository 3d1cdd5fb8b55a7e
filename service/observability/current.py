"""The request that the running task works for: what logs and spans take their ids from."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(frozen=True, slots=True)
class Current:
    """A request: its id, when it came (`time.perf_counter`), and its span where traces are on."""

    request_id: str
    start: float
    span: Span | None = None

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, where traces are on."""
        return None if self.span is None else format(self.span.get_span_context().trace_id, "032x")


_CURRENT: ContextVar[Current | None] = ContextVar("radiolucent_current", default=None)


def current() -> Current | None:
    """The request that this task, or the thread that it waits for, works for; None outside of any."""
    return _CURRENT.get()


def enter(request: Current) -> None:
    """Say what the running task, with all that it starts from now on, works for."""
    _CURRENT.set(request)
