"""Committed results, and how documents say where they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_NO_GPU = ("", "cpu", "simulated")


def result_of(name: str) -> dict[str, Any]:
    """A file of `benchmarks/results`, by its name without the ending."""
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def where(result: dict[str, Any]) -> str:
    """The machine and the day; first the GPU, where it was measured on one (`benchmarks.harness.machine`)."""
    machine = result["machine"]
    gpu = "" if machine["device"] in _NO_GPU else f"{machine['device']}, "
    return f"{gpu}{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}"


def rounds(result: dict[str, Any]) -> str:
    """How often everything was measured, in words."""
    count = result["options"]["rounds"]
    return f"{count} round" if count == 1 else f"{count} rounds"
