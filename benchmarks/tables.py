"""Write the documents' tables from the committed results, between `<!-- NAME -->` and `<!-- end -->`.

python -m benchmarks.tables          rewrites README.md, docs/dicom-results.md, http-efficiency.md, observability.md...
python -m benchmarks.tables --check  status 1 where a document is not what the results say
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from training.files import write_atomically
from training.markdown import table
from training.report import Report, load_report

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, REPORTS = ROOT / "README.md", ROOT / "benchmarks" / "results", ROOT / "docs" / "reports"
_TABLED = ("dicom-results.md", "faults.md", "http-efficiency.md", "observability.md")
_NAMED = (ROOT / "docs" / name for name in _TABLED)
DOCUMENTS = (README, *_NAMED, *sorted((ROOT / "docs").glob("explanation-*.md")))
BRAIN, OCT = "brain-mri-resnet50", "retinal-oct-oculusnet"
_METRICS = {
    "accuracy": "accuracy, all classes",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "f2": "F2",
    "kappa": "Cohen's kappa",
    "auroc": "AUROC",
    "finding_accuracy": "accuracy, any finding against none",
}


def accuracy() -> str:
    """Metrics of both models with their intervals."""
    brain, oct_ = (load_report(REPORTS / name) for name in ("brain-mri-resnet50", "retinal-oct-oculusnet"))
    rows = [[title, _estimate(brain, name), _estimate(oct_, name)] for name, title in _METRICS.items()]
    rows.append(["test images (groups)", *(f"{r.images} ({r.groups})" for r in (brain, oct_))])
    return table(["", "brain MRI, ResNet-50", "retinal OCT, after OculusNet"], rows)


def shortcut() -> str:
    """What the brain model knows without seeing a tumour."""
    report = load_report(REPORTS / "brain-mri-resnet50")
    rows = [[name, f"{v.value:.3f} ({v.low:.3f} to {v.high:.3f})"] for name, v in report.shortcut.items()]
    return table(["measure", "value (95 % interval)"], rows)


def localisation() -> str:
    """Where the maps lie, through the running service."""
    result = _result("localisation")
    rows = [
        [row["map of"], f"{row['pointing game']:.3f}", f"{row['energy inside']:.3f}"] for row in result["localisation"]
    ]
    (served,) = result["rows"]
    images = result["localisation"][0]["images"]
    text = (
        f"{images} outlined test images posted to the running service ({_where(result)}). On all {served['images']} "
        f"test images its accuracy is {served['accuracy served']:.4f}; the manifest says {served['manifest']:.4f}."
    )
    return table(["map", "pointing game", "share inside the outline"], rows) + f"\n\n{text}"


def explain_cost() -> str:
    """Milliseconds an image, and ratios to the fused explanation."""
    result = _result("explain_cost")
    batches = list(dict.fromkeys(row["batch"] for row in result["rows"]))
    names = list(dict.fromkeys(row["what"] for row in result["rows"]))
    cells = {(row["what"], row["batch"]): row for row in result["rows"]}

    def cell(name: str, batch: int) -> str:
        row = cells[name, batch]
        return f"{row['ms an image']:.1f} ms, {row['times fused explain']:.2f} x"

    rows = [[name, *(cell(name, batch) for batch in batches)] for name in names]
    return (
        table(["", *(f"batch {batch}" for batch in batches)], rows)
        + f"\n\n{Path(result['options']['bundle']).name}, {_where(result)}."
    )


def footprint() -> str:
    """Start-up and memory of the service."""
    result = _result("service_footprint")
    rows = [[row["what"], f"{row['median']:.1f}"] for row in result["rows"]]
    return table(["", "median"], rows) + f"\n\n{_where(result)}."


def methods_cost() -> str:
    """Every method and its peers."""
    result = _result("explain_cost")
    rows = [
        [
            row["what"],
            str(row["evaluations"] or ""),
            f"{row['ms']:,.0f}",
            "" if row["ms an evaluation"] is None else f"{row['ms an evaluation']:.1f}",
            f"{row['times predict']:.2f}",
        ]
        for row in result["methods"]
    ]
    head = ["method (: peer)", "evaluations", "ms", "ms an evaluation", "times predict"]
    return table(head, rows) + f"\n\n{Path(result['options']['bundle']).name}, one image, one class, {_where(result)}."


def parity(model: str) -> str:
    """Deviations from the references."""
    result = _result(f"explanation_parity-{model}")
    rows = [
        [r["method"], r["reference"], f"{r['largest deviation']:.1e}", f"{r['tolerance']:.0e}", r["because of"]]
        for r in result["rows"]
    ]
    text = f"{result['images']} test images, every class, batches of 1 and 8; {_where(result)}."
    return table(["method", "reference", "largest deviation", "tolerance", "what it allows for"], rows) + f"\n\n{text}"


def quality(model: str) -> str:
    """Every measure for every method, and the default that follows."""
    result = _result(f"explanation_quality-{model}")
    measured = [m for m in result["better"] if any(m in found for found in result["methods"].values())]

    def cell(found: dict[str, Any], name: str) -> str:
        value = found.get(name)
        return "" if value is None else f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"

    rows = [[name, *(cell(found, m) for m in measured)] for name, found in result["methods"].items()]
    head = ["method", *(f"{m.replace('_', ' ')} ({result['better'][m]})" for m in measured)]
    used = result["options"]
    text = (
        f"{used['measured']} test images, {used['thorough']} of them for road, randomisation, noise, shift and repeat; "
        f"{_where(result)}. The model's default method: `{result['default']}`."
    )
    return table(head, rows) + f"\n\n{text}"


def shapley(model: str) -> str:
    """Distances to converged Shapley values, and of partition maps to their own converged ones."""
    result = _result(f"shapley-{model}")
    cells = [
        [
            r["values"],
            f"{r['evaluations']:,}",
            f"{r['relative distance']:.2f}",
            f"{r['rank correlation']:.2f}",
            f"{r['seconds']:.1f}",
        ]
        for r in result["rows"]
    ]
    maps = [
        [r["map"], f"{r['evaluations']:,}", f"{r['relative distance']:.2f}", f"{r['seconds']:.1f}"]
        for r in result["maps"]
    ]
    used = result["options"]
    return (
        table(["values of 49 cells", "evaluations", "relative distance", "rank correlation", "seconds"], cells)
        + "\n\n"
        + table(["partition map", "evaluations", "distance from its own converged map", "seconds"], maps)
        + f"\n\n{used['images']} test images ({used['maps']} for the maps), "
        + f"converged: {used['converged']:,} evaluations; {_where(result)}."
    )


def studies() -> str:
    """The path of a series against the forward pass."""
    result, rate = _result("study_throughput"), "of the forward pass's rate"
    rows = [
        [r["what"], f"{r['ms a slice']:.1f}", f"{r['slices a second']:.1f}", f"{r[rate]:.2f}"] for r in result["rows"]
    ]
    head = ["", "ms a slice", "slices a second", rate]
    text = f"{result['options']['model']}, a series of {result['slices']} slices, {result['objects']} objects made; "
    return table(head, rows) + f"\n\n{text}{_where(result)}."


def pacs() -> str:
    """The same through a real Orthanc."""
    result, rate, cpu = _result("pacs_throughput"), "of the forward pass's rate", "CPU ms a slice"
    rows = [
        [r["what"], f"{r['ms a slice']:.1f}", f"{r['slices a second']:.1f}", f"{r[rate]:.2f}", r[cpu]]
        for r in result["rows"]
    ]
    head = ["", "ms a slice", "slices a second", rate, cpu]
    text = f"{result['options']['series']} series of {result['slices']} slices, {result['objects']} objects for each; "
    return table(head, rows) + f"\n\n{text}{_where(result)}."


def http() -> str:
    """HTTP against the engine, and where one image's time goes."""
    result = _result("http_efficiency")
    names = ("images a second", "corrected", "of the best", "CPU ms an image", "beyond")
    rows = [[r["what"], *("" if r[name] is None else f"{r[name]:.2f}" for name in names)] for r in result["rows"]]
    stages = sorted(result["stages"].items(), key=lambda item: -item[1])
    split = ", ".join(f"{stage} {value:.1f}" for stage, value in stages)
    parts = ", ".join(f"{part} {value:.2f}" for part, value in result["parts"].items())
    text = f"Wall time of one image alone by stage, ms: {split}.\n\n"
    text += f"CPU time of the parts of a request of one image, each alone, ms: {parts}.\n\n{_where(result)}."
    return table(["", *names], rows) + f"\n\n{text}"


def interference() -> str:
    """What single images feel of others."""
    result = _result("interference")
    names = list(result["rows"][0])
    rows = [
        [str(row["beside"]), str(row["requests"]), *(f"{row[name]:.2f}" for name in names[2:])]
        for row in result["rows"]
    ]
    used = result["options"]
    text = (
        f"{used['rate']:g} single images a second, {used['rounds']} rounds of {used['seconds']:g} s; {_where(result)}."
    )
    return table(names, rows) + f"\n\n{text}"


def overload() -> str:
    """Goodput at multiples of capacity."""
    result = _result("overload")
    names = list(result["rows"][0])

    def cell(value: float | int | None) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    rows = [[f"{row[names[0]]:g}", *(cell(row[name]) for name in names[1:])] for row in result["rows"]]
    used = result["options"]
    text = f"Capacity {result['capacity']:.1f} images a second, deadline {used['deadline_ms']} ms; "
    return table(names, rows) + f"\n\n{text}{used['seconds']:g} s each; {_where(result)}."


def observation() -> str:
    """What metrics, logs and spans cost."""
    result = _result("observation_cost")
    rows = [[r["what"], f"{r['us']:.0f}"] for r in result["rows"]]
    return table(["", "CPU time, microseconds"], rows) + f"\n\n{_where(result)}; shared with other work."


def faults() -> str:
    """What became of every request under each fault."""
    result = _result("faults")
    rows: list[list[str]] = []
    for one in result["faults"].values():
        outcomes = ", ".join(f"{count} {kind}" for kind, count in one["outcomes"].items())
        seen = ", ".join(f"{name} {value:g}" for name, value in one["figures"].items())
        held = f"{sum(one['claims'].values())} of {len(one['claims'])}"
        rows.append(
            [one["fault"], str(one["requests"]), outcomes, str(one["wrong"]), f"{one['recovery_s']:g}", held, seen]
        )
    head = ["fault", "requests", "ended", "wrong answers", "recovery, s", "claims that held", "besides"]
    return table(head, rows) + f"\n\n{_where(result)}; the machine was shared."


def soak() -> str:
    """What grew over the second half of a soak."""
    result = _result("soak")
    rows = [
        [
            name.replace("_mib", ", MiB"),
            f"{result['samples'][name][-1]:g}",
            f"{one['growth']:.2f} ({one['low']:.2f} to {one['high']:.2f})",
            f"{one['bound']:g}",
        ]
        for name, one in result["verdicts"].items()
    ]
    wrong = sum(result["unexpected"].values())
    text = f"{result['options']['minutes']:g} minutes, {result['requests']} requests, {wrong} not answered as is right"
    head = ["", "at the end", "growth over the second half (95 % interval)", "at most"]
    return table(head, rows) + f"\n\n{text}; {_where(result)}; the machine was shared."


SECTIONS: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "shortcut": shortcut,
    "localisation": localisation,
    "explain_cost": explain_cost,
    "footprint": footprint,
    "studies": studies,
    "pacs": pacs,
    "http": http,
    "interference": interference,
    "overload": overload,
    "observation": observation,
    "faults": faults,
    "soak": soak,
    "methods_cost": methods_cost,
    "parity_brain": partial(parity, BRAIN),
    "parity_oct": partial(parity, OCT),
    "shapley_oct": partial(shapley, OCT),
    "quality_brain": partial(quality, BRAIN),
    "quality_oct": partial(quality, OCT),
}


def rewritten(text: str) -> str:
    """The text with every marked section made anew.

    Raises:
        KeyError: a marker names no section.
    """
    return re.sub(
        r"<!-- ([a-z_]+) -->\n.*?<!-- end -->",
        lambda found: f"<!-- {found[1]} -->\n{SECTIONS[found[1]]()}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    texts = {path: path.read_text() for path in DOCUMENTS}
    new = {path: rewritten(text) for path, text in texts.items()}
    if options.check:
        return int(new != texts)
    for path, text in new.items():
        write_atomically(path, text.encode())
    return 0


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _estimate(report: Report, name: str) -> str:
    value = report.metrics[name]
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}"


if __name__ == "__main__":
    sys.exit(main())
