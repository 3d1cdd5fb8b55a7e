"""Tables of what a GPU makes of models and service."""

from __future__ import annotations

from typing import Any

from benchmarks.results_of import result_of, rounds, where
from training.markdown import table


def planning() -> str:
    """What a change of the batch size costs."""
    result = result_of("gpu")
    rows = [
        [row["model"], row["what"], f"{row['after 8, ms']:.1f}", f"{row['after 1, ms']:.1f}"]
        for row in result["planning"]
    ]
    return table(["", "8 images", "after 8, ms", "after 1, ms"], rows) + f"\n\n{where(result)}."


def forward() -> str:
    """Passes by precision and batch size, and how far they deviate."""
    result = result_of("gpu")
    names = list(result["forward"][0])
    rows = [
        [*(str(row[name]) for name in names[:2]), *(_cell(name, row[name]) for name in names[2:])]
        for row in result["forward"]
    ]
    return table(names, rows) + f"\n\n{where(result)}."


def methods() -> str:
    """Every method on GPU and CPU."""
    result = result_of("gpu")
    rows = [
        [
            row["model"],
            row["method"],
            str(row["evaluations"]),
            f"{row['GPU, ms']:.1f}",
            f"{row['CPU, ms']:.0f}",
            f"{row['map deviates']:.4f}",
        ]
        for row in result["methods"]
    ]
    return table(list(result["methods"][0]), rows) + f"\n\n{where(result)}."


def throughput() -> str:
    """Ours and the peers' on the GPU."""
    result = result_of("gpu_throughput")
    rates = {(row["what"], row["batch"]): row["images a second"] for row in result["rows"]}
    sizes, named = result["options"]["batches"], dict.fromkeys(what for what, _ in rates)
    rows = [[what, *(f"{rates[what, size]:,.{_digits(rates[what, size])}f}" for size in sizes)] for what in named]
    text = f"{result['options']['bundle'].split('/')[-1]}, images a second by batch size, torch {_torch(result)}"
    return table(["", *map(str, sizes)], rows) + f"\n\n{text}; {where(result)}."


def http() -> str:
    """The HTTP path with one worker."""
    result = result_of("gpu_http")
    names = ("images a second", "p50, ms", "CPU ms an image", "outside")
    rows = [[r["what"], *("" if r[name] is None else f"{r[name]:.1f}" for name in names)] for r in result["rows"]]
    return table(["", *names], rows) + f"\n\n{rounds(result)}, {where(result)}."


def scaling() -> str:
    """Throughput and memory by workers."""
    result = result_of("gpu_scaling")
    names = [name for name in result["rows"][0] if name not in ("cores", "busiest")]
    rows = [[_cell(name, row[name]) for name in names] for row in result["rows"]]
    return table(names, rows) + f"\n\n{rounds(result)}, {where(result)}."


def capacity() -> str:
    """The highest rate within the objective, open-loop."""
    result = result_of("gpu_capacity")
    names = ("rate", "requests", "p50_ms", "p95_ms", "p99_ms", "decision")
    rows = [[str(level[name]) for name in names] for level in result["levels"]]
    heads = ["offered a second", "requests", "p50, ms", "p95, ms", "p99, ms", "decision"]
    price, cost = result["options"]["price"], result["found"]["cost_per_1000"]
    text = f"**{result['found']['rate']:.0f} explanations a second** within p95 of {result['options']['p95_ms']:g} ms, "
    text += f"{cost:.4f} for 1,000 at {price:g} an hour; {result['options']['note']}; {where(result)}."
    return table(heads, rows) + f"\n\n{text}"


def _cell(name: str, value: float | int | None) -> str:
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    digits = 4 if "deviate" in name else 0 if "MiB" in name or "images/s" in name else 2 if "of one" in name else 1
    return f"{value:,.{digits}f}"


def _digits(rate: float) -> int:
    return 0 if rate > 20 else 1


def _torch(result: dict[str, Any]) -> str:
    return result["machine"]["versions"]["torch"]
