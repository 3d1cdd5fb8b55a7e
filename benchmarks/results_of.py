"""Committed results, and how documents say where they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def result_of(name: str) -> dict[str, Any]:
    """A file of `benchmarks/results`, by its name without the ending."""
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def where(result: dict[str, Any]) -> str:
    """The machine and the day."""
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}"
