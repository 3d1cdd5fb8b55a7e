"""`python -m export.migrate BUNDLE ...`: bundles of schema 2 become bundles of schema 3; their graphs stay.

Schema 3 says what reaches the model: modality values, the display orientation of the plane, the aspect of its pixels,
and how much the answers depend on how an image is stored, which `python -m export.invariance` measures afterwards.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from export.errors import ExportError
from export.rewrite import read_json, rewrite
from service.manifest import SCHEMA_VERSION
from training.commands import run_command

_BEFORE = 2
_ORIENTATIONS = {"MR": "patient", "CT": "patient", "OPT": "depth"}


def migrate(path: Path, pixel_aspect: float, orientation: str) -> bool:
    """Rewrite one bundle.

    Args:
        path: the bundle's folder.
        pixel_aspect: see `service.types.PreprocessingSpec`.
        orientation: likewise; empty: that of the bundle's modality.

    Returns:
        Whether a signature was dropped; sign the bundle again.

    Raises:
        ExportError: no bundle of schema 2, or its files are not those that it lists.
        ValidationError: the manifest is not valid.
    """
    content = read_json(path)
    if content.get("schema_version") != _BEFORE:
        raise ExportError(f"{path}: schema {content.get('schema_version')}; only schema {_BEFORE} can be migrated")
    modality = content["kind"]["modalities"][0] if content["kind"]["modalities"] else ""
    added = {
        "values": "modality",
        "padding": "background",
        "orientation": orientation or _ORIENTATIONS.get(modality, "stored"),
        "pixel_aspect": pixel_aspect,
    }
    preprocessing = added | content["preprocessing"]
    return rewrite(path, {"schema_version": SCHEMA_VERSION, "preprocessing": preprocessing, "invariance": None})


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where all bundles were migrated, 2 where one cannot be, which stays as it was.
    """
    parser = argparse.ArgumentParser(prog="python -m export.migrate", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument(
        "--pixel-aspect",
        type=float,
        default=1.0,
        metavar="RATIO",
        help="spacing of rows divided by that of columns in the training data (default: %(default)s)",
    )
    parser.add_argument(
        "--orientation", choices=("stored", "patient", "depth"), default="", help="default: by the bundle's modality"
    )
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    console = Console(stderr=True, soft_wrap=True)
    for path in options.bundles:
        try:
            dropped = migrate(path, options.pixel_aspect, options.orientation)
        except ExportError as error:
            console.print(f"cannot migrate: {error}", style="red", markup=False)
            return 2
        console.print(f"{path}: schema {SCHEMA_VERSION}{'; sign it again' if dropped else ''}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
