"""A finished load test as one JSON document: options, machine, verdict, what each operation took, server, samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from loadtests.mix import FileError
from loadtests.objectives import GOOD, Judged, Objectives, judge
from loadtests.samples import OUTCOMES, Sample, by_operation, columns_of, duration, quantile, samples_of, steady
from loadtests.scrape import Reading, series_of, spent


def operations_of(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """What every operation took, as rows: requests by outcome, images, requests a second, latencies in ms."""
    seconds = duration(samples)
    rows: list[dict[str, Any]] = []
    for name, own in by_operation(samples).items():
        good = [sample.ms for sample in own if sample.outcome in GOOD]
        rows.append(
            {
                "operation": name,
                "requests": len(own),
                **{outcome: sum(sample.outcome == outcome for sample in own) for outcome in OUTCOMES},
                "images": sum(sample.images for sample in own),
                "per_s": round(len(own) / seconds, 3) if seconds else 0.0,
                **{f"p{100 * share:.0f}_ms": _finite(quantile(good, share)) for share in (0.5, 0.95, 0.99)},
            }
        )
    return rows


def result_of(
    samples: Sequence[Sample],
    readings: Sequence[Reading],
    objectives: Objectives,
    options: Mapping[str, Any],
    note: str,
) -> dict[str, Any]:
    """The document. `note` says what the figures depend on beside the machine."""
    verdict: list[Judged] = judge(samples, objectives)
    judged = steady(samples, objectives.warm_up_s)
    return {
        "kind": "load",
        "options": dict(options),
        "machine": {**machine("", 0), "note": note},
        "met": all(row.met for row in verdict),
        "verdict": [asdict(row) | {"measured": _finite(row.measured)} for row in verdict],
        "operations": operations_of(judged),
        "stage_seconds": {name: round(seconds, 3) for name, seconds in spent(readings).items()},
        "server": series_of(readings),
        "samples": columns_of(samples),
    }


def read_result(path: Path) -> tuple[dict[str, Any], list[Sample]]:
    """A document of `result_of`, and its samples.

    Raises:
        FileError: it cannot be read, or is none.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if result["kind"] != "load":
            raise KeyError("kind")
        return result, samples_of(result["samples"])
    except OSError as error:
        raise FileError(f"{path}: {error}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise FileError(f"{path}: not the load.json of a load test") from error


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else round(value, 4)
