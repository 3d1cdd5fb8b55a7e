"""Structure-aware fuzzing of the DICOM reader: `python -m tests.fuzz --count 10000 --seed 0`.

Files are mutated as `tests.fuzz.mutate` says and read as the service reads them, in a child process. Wrong is: an
exception outside the error tree, one that would be a 5xx, a text that quotes the patient's name, a process that dies,
no answer for 5 s, and memory that grows over the second half of the run by more than 48 MiB; in the first, threads,
caches and the allocator's pools fill. The same seed makes the same files. What is wrong is kept under --findings; those
made from synthetic seeds can go to `tests/fuzz/corpus`, which a test reads again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from tests.fuzz.mutate import mutate
from tests.fuzz.runner import PATIENCE, TARGET, Answer, Runner, running
from tests.fuzz.seeds import seeds, synthetic

WRONG = ("fault", "crash", "hang")
GROWTH = 48.0  # MiB
RESULTS = "tests.fuzz.results:make"
DOORS = "tests.fuzz.doors:post"
SLOW = 20.0  # seconds for making all results of a file
_SHOWN = 5


@dataclass(slots=True)
class Tally:
    """What became of the files of a run."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    wrong: list[dict[str, str | int]] = field(default_factory=list[dict[str, str | int]])
    resident: list[float] = field(default_factory=list[float])
    slowest: float = 0.0
    peak: float = 0.0

    def add(self, number: int, content: bytes, answer: Answer) -> None:
        """Count a file."""
        self.outcomes[answer.outcome] += 1
        self.slowest, self.peak = max(self.slowest, answer.seconds), max(self.peak, answer.peak)
        if answer.resident:
            self.resident.append(answer.resident)
        if answer.outcome in WRONG:
            digest = hashlib.sha256(content).hexdigest()[:12]
            self.wrong.append({"number": number, "what": answer.outcome, "file": digest, "detail": answer.detail})

    def growth(self) -> float:
        """Mean memory over the last tenth of the run less that over the one after its middle, MiB."""
        tenth, middle = max(1, len(self.resident) // 10), len(self.resident) // 2
        early, late = self.resident[middle : middle + tenth], self.resident[-tenth:]
        return sum(late) / len(late) - sum(early) / len(early) if late else 0.0


def fuzz(runner: Runner, count: int, seed: int, *, only_synthetic: bool = False, findings: Path | None = None) -> Tally:
    """Mutate and read `count` files; those that go wrong are written into `findings`."""
    good, tally = synthetic() if only_synthetic else seeds(), Tally()
    for number in tqdm(range(count), unit="file", mininterval=5, disable=count < 1000):
        content = mutate(good, random.Random(f"{seed}:{number}"))
        answer = runner.read(content)
        tally.add(number, content, answer)
        if answer.outcome in WRONG and findings is not None:
            findings.mkdir(parents=True, exist_ok=True)
            name = f"{answer.outcome}-{hashlib.sha256(content).hexdigest()[:12]}"
            (findings / f"{name}.dcm").write_bytes(content)
            (findings / f"{name}.txt").write_text(answer.detail)
    return tally


def main() -> int:
    """Run, tell, and write --json.

    Returns:
        0 where nothing went wrong, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--results", action="store_true", help="also make DICOM results, and de-identify them")
    parser.add_argument("--doors", action="store_true", help="post them to the HTTP API, in envelopes damaged as well")
    parser.add_argument("--synthetic", action="store_true", help="start from synthetic files only")
    parser.add_argument("--findings", type=Path, metavar="DIR", help="where to keep files that go wrong")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    target, patience = (RESULTS, SLOW) if options.results else (DOORS if options.doors else TARGET, PATIENCE)
    with running(target, patience) as runner:
        tally = fuzz(runner, options.count, options.seed, only_synthetic=options.synthetic, findings=options.findings)
    good = synthetic() if options.synthetic else seeds()
    words = f"python -m tests.fuzz --count {options.count} --seed {options.seed}"
    figures = {
        "command": words
        + "".join(f" --{name}" for name in ("results", "doors", "synthetic") if getattr(options, name)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": len(good),
        "outcomes": dict(tally.outcomes.most_common()),
        "wrong": [{**one, "detail": str(one["detail"]).splitlines()[-1]} for one in tally.wrong],
        "slowest_s": round(tally.slowest, 3),
        "resident_mib": [round(value, 1) for value in tally.resident[:: max(1, len(tally.resident) // 20)]],
        "growth_mib": round(tally.growth(), 1),
        "peak_mib": round(tally.peak, 1),
        "versions": {name: version(name) for name in ("pydicom", "numpy", "pylibjpeg", "pylibjpeg-openjpeg")}
        | {"python": platform.python_version()},
    }
    text = json.dumps(figures, indent=1) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    sys.stdout.write(text)
    for one in tally.wrong[:_SHOWN]:
        sys.stdout.write(f"\nfile {one['number']}: {one['what']}\n{one['detail']}\n")
    return 1 if tally.wrong or tally.growth() > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
