"""Tables of how good models and explanations are, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results_of import ROOT, result_of, where
from export.card import changes_table
from service.bundle import MANIFEST
from service.manifest import Invariance
from service.settings import SHIPPED_MODELS
from training.markdown import table
from training.report import Report, load_report

REPORTS = ROOT / "docs" / "reports"
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


def invariance(name: str) -> str:
    """How far answers depend on how an image is stored, from the manifest of a shipped bundle."""
    content = json.loads((SHIPPED_MODELS / name / MANIFEST).read_text())
    found = Invariance.model_validate(content["invariance"])
    return f"{changes_table(found)}\n\n{found.images} images, `{found.command}`, {found.date[:10]}."


def field_of_view() -> str:
    """What of the head lies within the crop, by source."""
    result = result_of("field_of_view")
    rows = [[_cell(value) for value in row.values()] for row in result["rows"]]
    return table(list(result["rows"][0]), rows) + f"\n\n{where(result)}."


def _cell(value: str | float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def localisation() -> str:
    """Where the maps lie, through the running service."""
    result = result_of("localisation")
    rows = [
        [row["map of"], f"{row['pointing game']:.3f}", f"{row['energy inside']:.3f}"] for row in result["localisation"]
    ]
    (served,) = result["rows"]
    images = result["localisation"][0]["images"]
    text = (
        f"{images} outlined test images posted to the running service ({where(result)}). On all {served['images']} "
        f"test images its accuracy is {served['accuracy served']:.4f}; the manifest says {served['manifest']:.4f}."
    )
    return table(["map", "pointing game", "share inside the outline"], rows) + f"\n\n{text}"


def explain_cost() -> str:
    """Milliseconds an image, and ratios to the fused explanation."""
    result = result_of("explain_cost")
    batches = list(dict.fromkeys(row["batch"] for row in result["rows"]))
    names = list(dict.fromkeys(row["what"] for row in result["rows"]))
    cells = {(row["what"], row["batch"]): row for row in result["rows"]}

    def cell(name: str, batch: int) -> str:
        row = cells[name, batch]
        return f"{row['ms an image']:.1f} ms, {row['times fused explain']:.2f} x"

    rows = [[name, *(cell(name, batch) for batch in batches)] for name in names]
    return (
        table(["", *(f"batch {batch}" for batch in batches)], rows)
        + f"\n\n{Path(result['options']['bundle']).name}, {where(result)}."
    )


def methods_cost() -> str:
    """Every method and its peers."""
    result = result_of("explain_cost")
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
    return table(head, rows) + f"\n\n{Path(result['options']['bundle']).name}, one image, one class, {where(result)}."


def parity(model: str) -> str:
    """Deviations from the references."""
    result = result_of(f"explanation_parity-{model}")
    rows = [
        [r["method"], r["reference"], f"{r['largest deviation']:.1e}", f"{r['tolerance']:.0e}", r["because of"]]
        for r in result["rows"]
    ]
    text = f"{result['images']} test images, every class, batches of 1 and 8; {where(result)}."
    return table(["method", "reference", "largest deviation", "tolerance", "what it allows for"], rows) + f"\n\n{text}"


def quality(model: str) -> str:
    """Every measure for every method, and the default that follows."""
    result = result_of(f"explanation_quality-{model}")
    measured = [m for m in result["better"] if any(m in found for found in result["methods"].values())]

    def cell(found: dict[str, Any], name: str) -> str:
        value = found.get(name)
        return "" if value is None else f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"

    rows = [[name, *(cell(found, m) for m in measured)] for name, found in result["methods"].items()]
    head = ["method", *(f"{m.replace('_', ' ')} ({result['better'][m]})" for m in measured)]
    text = f"{_images_of(result)}; {where(result)}. The model's default method: `{result['default']}`."
    return table(head, rows) + f"\n\n{text}" + _ranks(result)


def _images_of(result: dict[str, Any]) -> str:
    used = result["options"]
    if "images" not in result:  # of a run of before
        few = f"{used['thorough']} of them for road, randomisation, noise, shift and repeat"
        return f"{used['measured']} test images, {few}"
    counts = sorted(set(result["images"].values()))
    return f"{counts[-1]} test images for methods of one pass, {counts[0]} for the others"


def _ranks(result: dict[str, Any]) -> str:
    """Tabulate which method is the best by each measure, and which cannot be told from it."""
    if "best" not in result:
        return ""
    rows = [[metric.replace("_", " "), first, ", ".join(rest)] for metric, (first, *rest) in result["best"].items()]
    return "\n\n" + table(["measure", "best mean", "cannot be told from it"], rows)


def shapley(model: str) -> str:
    """Distances to converged Shapley values, and of partition maps to their own converged ones."""
    result = result_of(f"shapley-{model}")
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
        + f"converged: {used['converged']:,} evaluations; {where(result)}."
    )


def _estimate(report: Report, name: str) -> str:
    value = report.metrics[name]
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
