"""Does the same anatomy give the same answer, however it is stored?

Every image of the untouched test part is stored in some twenty legal ways (VOI windows, transfer syntaxes, bit layouts,
MONOCHROME1, padding, other grids with their spacing, rotated and mirrored with the orientation that says so, a frame of
an enhanced instance, PNG), read as the service reads files, and answered. `labels changed` counts those whose label is
another than for the plain file; maps are brought back to the picture before they are compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import Cell, machine, parser, save, show
from benchmarks.results_of import ROOT
from export.invariance import failures, measure, open_bundle, read_source, untouched_records
from service.settings import SHIPPED_MODELS


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 1 where more labels change than an export allows."""
    made = parser("invariance", __doc__)
    made.add_argument("model", metavar="MODEL", help="id of a shipped model, or the folder of a bundle")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of its dataset")
    made.add_argument("--config", type=Path, metavar="FILE", help="of its training run (default: the shipped one)")
    options = made.parse_args(arguments)
    path = Path(options.model) if Path(options.model).is_dir() else SHIPPED_MODELS / options.model
    config = options.config or ROOT / "training" / "configs" / f"{path.name}.toml"
    words = f"python -m benchmarks.invariance {path.name} DATA"
    found = measure(open_bundle(path), untouched_records(read_source(config), options.data), words)
    rows: list[dict[str, Cell]] = [
        {
            "stored": name.replace("_", " "),
            "resampled": "yes" if change.resampled else "no",
            "labels changed": change.labels_changed,
            "largest change of a probability": change.largest_probability_change,
            "map, rank correlation": change.map_correlation,
            "lowest": change.lowest_map_correlation,
        }
        for name, change in found.changes.items()
    ]
    where = machine("cpu", 0)
    show(f"invariance: {path.name}, {found.images} images", rows, where)
    save(options, where, model=path.name, images=found.images, rows=rows)
    refused = failures(found)
    for reason in refused:
        sys.stderr.write(f"{reason}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
