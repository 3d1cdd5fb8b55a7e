"""`python -m export CHECKPOINT OUT`: a checkpoint becomes a model bundle, or a list of what is wrong with it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
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
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the dataset: refuse a bundle whose answers depend on how its test images are stored (export.invariance)",
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
    from export.errors import ExportError, LabelsChange
    from export.invariance import require_invariance
    from export.parity import ParityError
    from export.segmentation import export_segmentation
    from export.writer import put_in_place
    from training.checkpoint import load_run
    from training.config import DataConfig

    checkpoint: Path = arguments.checkpoint
    out: Path = arguments.out
    console = Console(stderr=True, soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        description = load_description(arguments.description or SHIPPED / f"{out.name}.toml")
        content = load_run(checkpoint)
        write = export_segmentation if content.get("task") == "segmentation" else export
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            made = Path(folder) / out.name
            manifest = write(checkpoint, made, arguments.report or checkpoint.parent / "report", description, console)
            if arguments.data is not None:
                source = DataConfig.model_validate(json.loads(content["config"])["data"])
                require_invariance(made, source, arguments.data)
            put_in_place(made, out)
    except ExportError as error:
        console.print(f"cannot export: {error}", style="red", markup=False)
        return 2
    except LabelsChange as error:
        console.print(f"not exported, answers depend on how images are stored: {error}", style="red", markup=False)
        return 1
    except ParityError as error:
        console.print(f"not exported, the graph is not the network: {error}", style="red", markup=False)
        return 1
    for check in manifest.parity:
        console.print(f"  {check.check}: {check.deviation:.2g} (allowed {check.tolerance:.0e}, {check.images} images)")
    console.print(f"wrote {out}: {manifest.id} {manifest.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
