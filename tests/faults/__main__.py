"""Faults against the real service under continuous load: `python -m tests.faults [FAULT ...] [--json FILE]`.

Every fault is injected from outside (see `tests.faults.scenarios`) while clients go on asking. For each: how many
requests there were, how each ended, seconds to recovery, and whether what must hold did. Exits with 1 where it did not.
The disk needs unprivileged user namespaces (`unshare`), the clock needs libfaketime (Debian: faketime).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest does

from rich.console import Console

from benchmarks.harness import machine
from tests.faults.scenarios import SCENARIOS
from tests.faults.scene import Finding


def main() -> int:
    """Try the faults, print, and write --json.

    Returns:
        0 where everything held that must, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"default: all of {', '.join(SCENARIOS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there; other faults in it stay")
    options = parser.parse_args()
    unknown = set(options.faults) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    console, passed = Console(soft_wrap=True), True
    for name in options.faults or SCENARIOS:
        with console.status(name):
            found = asyncio.run(SCENARIOS[name]())
        passed = passed and found.passed
        console.print(f"[bold]{found.fault}[/]: {found.requests} requests {found.outcomes}, {found.figures}")
        console.print(f"  recovered after {found.recovery_s} s")
        for claim, holds in found.claims.items():
            console.print(f"  {'[green]yes[/]' if holds else '[red]NO [/]'} {claim}")
        if options.json is not None:
            _write(options.json, name, found)
    return 0 if passed else 1


def _write(file: Path, name: str, found: Finding) -> None:
    faults = json.loads(file.read_text())["faults"] if file.exists() else {}
    faults[name] = asdict(found) | {"passed": found.passed}
    figures = {
        "command": "python -m tests.faults --json " + str(file),
        "machine": machine("cpu", len(os.sched_getaffinity(0))),
        "faults": {each: faults[each] for each in SCENARIOS if each in faults},
    }
    file.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
