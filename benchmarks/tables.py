"""Write the README's tables from the committed results, between `<!-- NAME -->` and `<!-- end -->`.

python -m benchmarks.tables          rewrites README.md
python -m benchmarks.tables --check  status 1 where README.md is not what the results say
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from training.files import write_atomically
from training.markdown import table
from training.report import Report, load_report

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, REPORTS = ROOT / "README.md", ROOT / "benchmarks" / "results", ROOT / "docs" / "reports"
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


SECTIONS = {
    "accuracy": accuracy,
    "shortcut": shortcut,
    "localisation": localisation,
    "explain_cost": explain_cost,
    "footprint": footprint,
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
    text = README.read_text()
    new = rewritten(text)
    if options.check:
        return int(new != text)
    write_atomically(README, new.encode())
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
