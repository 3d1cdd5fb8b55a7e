"""`python -m export CHECKPOINT OUT`: a checkpoint becomes a model bundle, or a list of what is wrong with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Entry point.

    Returns:
        0 where a bundle was written, 1 where a check failed, 2 where something is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt of a run")
    parser.add_argument("out", type=Path, metavar="OUT", help="the bundle's folder; an older bundle there is replaced")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="what 'training evaluate' wrote (default: report/ by the checkpoint)"
    )
    parser.add_argument(
        "--description", type=Path, metavar="FILE", help="the model in words (default: the one shipped for OUT's name)"
    )
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle with this Ed25519 key (export.sign)")
    asked = parser.parse_args(arguments)
    from training.commands import run_command

    done = run_command(parser.prog, lambda: _export(asked))
    if done or asked.sign is None:
        return done
    from export.sign import main as sign

    return sign([str(asked.sign), str(asked.out)])


def _export(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from export.classifier import export
    from export.description import SHIPPED, load_description
    from export.errors import ExportError
    from export.parity import ParityError
    from export.segmentation import export_segmentation
    from training.checkpoint import load_checkpoint

    checkpoint: Path = arguments.checkpoint
    out: Path = arguments.out
    console = Console(stderr=True, soft_wrap=True)
    try:
        description = load_description(arguments.description or SHIPPED / f"{out.name}.toml")
        outlining = load_checkpoint(checkpoint).get("task") == "segmentation"
        write = export_segmentation if outlining else export
        manifest = write(checkpoint, out, arguments.report or checkpoint.parent / "report", description, console)
    except ExportError as error:
        console.print(f"cannot export: {error}", style="red", markup=False)
        return 2
    except ParityError as error:
        console.print(f"not exported, the graph is not the network: {error}", style="red", markup=False)
        return 1
    for check in manifest.parity:
        console.print(f"  {check.check}: {check.deviation:.2g} (allowed {check.tolerance:.0e}, {check.images} images)")
    console.print(f"wrote {out}: {manifest.id} {manifest.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
