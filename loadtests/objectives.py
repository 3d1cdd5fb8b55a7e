"""Service-level objectives, and whether a run meets them: `objectives.toml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, model_validator

from loadtests.mix import read_toml
from loadtests.samples import Sample, by_operation, duration, quantile, steady
from service.validation import Strict

SHIPPED = Path(__file__).with_name("objectives.toml")
GOOD = ("answered", "refused")


class Latency(Strict):
    """Milliseconds that 50, 95 and 99 % of an operation's requests may take at most; None is not judged.

    Attributes:
        least: requests that must have been made.
        per_image: whether a request's latency is divided by its images.
    """

    p50_ms: float | None = Field(default=None, gt=0)
    p95_ms: float | None = Field(default=None, gt=0)
    p99_ms: float | None = Field(default=None, gt=0)
    least: int = Field(default=10, ge=1)
    per_image: bool = False

    @model_validator(mode="after")
    def _check(self) -> Latency:
        limits = list(self.limits.values())
        if not limits:
            raise ValueError("name at least one of p50_ms, p95_ms, p99_ms")
        if limits != sorted(limits):
            raise ValueError("p50_ms, p95_ms, p99_ms: a larger share cannot be faster")
        return self

    @property
    def limits(self) -> dict[float, float]:
        """Milliseconds by share of the requests, 0..1."""
        named = {0.5: self.p50_ms, 0.95: self.p95_ms, 0.99: self.p99_ms}
        return {share: limit for share, limit in named.items() if limit is not None}


class Objectives(Strict):
    """What a run must reach; `wrong` and `shed` are shares of all requests, 0..1."""

    warm_up_s: float = Field(default=5.0, ge=0)
    least_requests: int = Field(default=100, ge=1)
    wrong: float = Field(default=0.0, ge=0, le=1)
    shed: float = Field(default=0.0, ge=0, le=1)
    images_per_s: float = Field(default=0.0, ge=0)
    latency: dict[str, Latency] = Field(min_length=1)
    capacity: dict[str, Latency] = Field(default_factory=dict[str, Latency])

    def of(self, operation: str) -> Latency | None:
        """The latency objective of an operation among others: the first whose name fits."""
        return _fitting(operation, self.latency)

    def alone(self, operation: str) -> Latency | None:
        """The latency objective of an operation that nothing else is asked beside: the first whose name fits."""
        return _fitting(operation, self.capacity)


def _fitting(operation: str, named: Mapping[str, Latency]) -> Latency | None:
    return next((one for name, one in named.items() if fnmatchcase(operation, name)), None)


@dataclass(frozen=True, slots=True)
class Judged:
    """One objective: what was measured, and the limit (`least` where it is a lower one)."""

    objective: str
    measured: float
    limit: float
    met: bool
    unit: str = "ms"
    least: bool = False

    def __str__(self) -> str:
        """In words."""
        bound = "at least" if self.least else "at most"
        return f"{self.objective}: {self.measured:.4g} {self.unit}, {bound} {self.limit:g}"


def read_objectives(path: Path = SHIPPED) -> Objectives:
    """The objectives of a file.

    Raises:
        FileError: it cannot be used; see `loadtests.mix.read_toml`.
    """
    return read_toml(path, Objectives)


def judge(samples: Sequence[Sample], objectives: Objectives) -> list[Judged]:
    """Every objective, met or missed, on what came after the warm-up.

    An operation that was not asked for often enough misses its objective: nothing was shown. Latencies are those of
    right answers; wrong and shed ones have bounds of their own.
    """
    judged = steady(samples, objectives.warm_up_s)
    operations = by_operation(judged)
    rows = _totals(judged, objectives)
    for name, latency in objectives.latency.items():
        fitting = [one for one in operations if objectives.of(one) is latency]
        if not fitting:
            rows.append(_least(f"{name}, requests", 0, latency.least, "requests"))
        for one in fitting:
            rows += _latencies(one, operations[one], latency)
    return rows


def _totals(samples: Sequence[Sample], objectives: Objectives) -> list[Judged]:
    count, seconds = len(samples), duration(samples)
    images = sum(sample.images for sample in samples)

    def share(outcome: str) -> float:
        return sum(sample.outcome == outcome for sample in samples) / max(count, 1)

    return [
        _least("requests", count, objectives.least_requests, "requests"),
        Judged("wrong answers", share("wrong"), objectives.wrong, share("wrong") <= objectives.wrong, "of all"),
        Judged("shed requests", share("shed"), objectives.shed, share("shed") <= objectives.shed, "of all"),
        _least("throughput", images / seconds if seconds else 0.0, objectives.images_per_s, "images/s"),
    ]


def _latencies(operation: str, samples: Sequence[Sample], latency: Latency) -> list[Judged]:
    good = [sample for sample in samples if sample.outcome in GOOD]
    values = [sample.ms / (max(sample.images, 1) if latency.per_image else 1) for sample in good]
    rows = [_least(f"{operation}, requests", len(good), latency.least, "requests")]
    unit = "ms an image" if latency.per_image else "ms"
    for share, limit in latency.limits.items():
        measured = quantile(values, share)
        rows.append(Judged(f"{operation}, p{100 * share:.0f}", measured, limit, measured <= limit, unit))
    return rows


def _least(objective: str, measured: float, limit: float, unit: str) -> Judged:
    return Judged(objective, measured, limit, measured >= limit, unit, least=True)
