"""Is B slower than A, or is it noise?

    python -m loadtests.compare A.json B.json [--baseline A2.json ...] [--candidate B2.json ...]

Two results of `python -m loadtests`, A the older. For every operation the median and the 95 % quantile of B are
divided by those of A; so is the throughput. How far a quantile varies comes from resampling blocks of time (requests
of the same moment wait together, so single ones must not be resampled: Kuensch, 1989); the interval is that of
Student's t with one degree of freedom less than the shorter side has blocks, and all intervals together hold with 95
% (Bonferroni).

It is a regression where the whole interval is on the slow side of 1 and the change is at least the tolerance; more
wrong answers are one, too, and so is a larger share that is put off. Blocks of one run know nothing of what differs
between runs (a neighbour on the machine): where that matters, run A and B in turn several times and give all of them.
The status is 1 for a regression, 2 where the results cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import fisher_exact, mannwhitneyu, t

from loadtests.mix import FileError
from loadtests.objectives import GOOD
from loadtests.result import read_result
from loadtests.samples import Floats, Sample, by_operation, quantile, steady

LEAST_BLOCKS = 5
RESAMPLES = 1000
Found = Literal["regression", "improvement", "no difference shown"]
Blocks = list[list[Sample]]
Measure = Callable[[Floats], float]


@dataclass(frozen=True, slots=True)
class Effect:
    """B divided by A, with its interval; below 1 is faster for latencies, less for throughput."""

    what: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    found: Found


def blocks_of(runs: Sequence[Sequence[Sample]], block_s: float) -> Blocks:
    """The requests of all runs by blocks of time; a last one that is not full is dropped."""
    blocks: Blocks = []
    for run in runs:
        if not run:
            continue
        start, end = min(sample.at for sample in run), max(sample.at for sample in run)
        own: Blocks = [[] for _ in range(int((end - start) / block_s))]
        for sample in run:
            number = int((sample.at - start) / block_s)
            if number < len(own):
                own[number].append(sample)
        blocks += own
    return blocks


def latencies(blocks: Blocks, operation: str) -> list[Floats]:
    """An operation's latencies in ms by block, of right answers."""
    chosen = ([s.ms for s in block if s.operation == operation and s.outcome in GOOD] for block in blocks)
    return [np.array(own, np.float64) for own in chosen]


def images(blocks: Blocks) -> list[Floats]:
    """Images answered, one number for each block."""
    return [np.array([sum(sample.images for sample in block)], np.float64) for block in blocks]


def compare(
    before: Sequence[Floats],
    after: Sequence[Floats],
    measure: Measure,
    what: str,
    *,
    confidence: float,
    tolerance: float,
) -> Effect | None:
    """One effect; None where too little is known: fewer than `LEAST_BLOCKS` blocks, or resamples without a value.

    Args:
        before: values of A by block.
        after: values of B by block.
        measure: of the values of all blocks, positive; larger is slower, unless `what` is the throughput.
        what: its name.
        confidence: of the interval, 0..1.
        tolerance: smallest change that matters, 0.05 for 5 %.
    """
    if min(len(before), len(after)) < LEAST_BLOCKS:
        return None
    first, second = (measure(np.concatenate(side)) for side in (before, after))
    spread = float(np.hypot(_deviation(before, measure), _deviation(after, measure)))
    if not (first > 0 and second > 0 and np.isfinite(spread)):
        return None
    half = float(t.ppf((1 + confidence) / 2, min(len(before), len(after)) - 1)) * spread
    effect = float(np.log(second / first))
    low, high = effect - half, effect + half
    slower, faster = low > 0 and effect >= np.log1p(tolerance), high < 0 and effect <= -np.log1p(tolerance)
    if what == "throughput":
        slower, faster = faster, slower
    found: Found = "regression" if slower else "improvement" if faster else "no difference shown"
    ratio, least, most = (float(np.exp(value)) for value in (effect, low, high))
    return Effect(what, first, second, ratio, least, most, found)


def _deviation(blocks: Sequence[Floats], measure: Measure) -> float:
    """Standard deviation of the logarithm of a measure over resampled blocks; NaN where it has no value in most."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    values = np.array([measure(np.concatenate([blocks[number] for number in row])) for row in drawn])
    usable = values[values > 0]
    correction = np.sqrt(len(blocks) / (len(blocks) - 1))
    return float(np.std(np.log(usable)) * correction) if len(usable) > 0.9 * RESAMPLES else float("nan")


def effects_of(before: Blocks, after: Blocks, *, tolerance: float, least: int = 20) -> tuple[list[Effect], list[str]]:
    """All effects, and the operations of which there is too little to say: fewer than `least` requests on a side."""
    sides = [by_operation([sample for block in blocks for sample in block]) for blocks in (before, after)]
    named = sorted(set(sides[0]) | set(sides[1]))
    enough = [name for name in named if min(len(side.get(name, [])) for side in sides) >= least]
    asked: list[tuple[str, list[Floats], list[Floats], Measure]] = [
        ("throughput", images(before), images(after), _mean)
    ]
    for name in enough:
        values = latencies(before, name), latencies(after, name)
        asked += [(f"{name}, p{100 * q:.0f} ms", *values, partial(quantile, share=q)) for q in (0.5, 0.95)]
    confidence = 1 - 0.05 / len(asked)
    made = [
        compare(first, second, measure, what, confidence=confidence, tolerance=tolerance)
        for what, first, second, measure in asked
    ]
    unknown = [what for (what, *_), effect in zip(asked, made, strict=True) if effect is None]
    return [effect for effect in made if effect is not None], [name for name in named if name not in enough] + unknown


def _mean(values: Floats) -> float:
    return float(np.mean(values))


def more_wrong(before: Blocks, after: Blocks) -> str | None:
    """What to say where B has more wrong answers than chance explains (Fisher's exact test, one-sided, 1 %)."""
    counts = [[s.outcome == "wrong" for block in blocks for s in block] for blocks in (before, after)]
    table = [[sum(side), len(side) - sum(side)] for side in reversed(counts)]
    tested: Any = fisher_exact(table, alternative="greater")
    if tested.pvalue >= 0.01:
        return None
    return f"wrong answers: {sum(counts[1])} of {len(counts[1])}, before {sum(counts[0])} of {len(counts[0])}"


def more_shed(before: Blocks, after: Blocks, tolerance: float) -> str | None:
    """What to say where B puts off a larger share than A, beyond the tolerance and what chance explains.

    Requests of the same moment are put off together, so that the shares of blocks are compared and not single requests
    (Mann and Whitney, 1947; one-sided, 1 %).
    """
    shares = [
        [sum(s.outcome == "shed" for s in block) / len(block) for block in blocks if block]
        for blocks in (before, after)
    ]
    first, second = map(_mean, map(np.asarray, shares))
    tested: Any = mannwhitneyu(shares[1], shares[0], alternative="greater")
    if second - first < tolerance or tested.pvalue >= 0.01:
        return None
    return f"put off: {second:.1%}, before {first:.1%}"


def read_side(paths: Sequence[Path], block_s: float) -> tuple[dict[str, Any], Blocks]:
    """Options of the first result of a side, and the blocks of all, without their warm-ups.

    Raises:
        FileError: one is no result, or of another load than the first.
    """
    results = [read_result(path) for path in paths]
    options = results[0][0]["options"]
    for path, (result, _) in zip(paths, results, strict=True):
        if load_of(result["options"]) != load_of(options):
            raise FileError(f"{path}: another load than {paths[0]}")
    return results[0][0], blocks_of([steady(own, r["options"]["warm_up_s"]) for r, own in results], block_s)


def load_of(options: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for two runs to be comparable."""
    return {name: options[name] for name in ("users", "shape", "mix")}


def show(effects: Sequence[Effect], unknown: Sequence[str], console: Console) -> None:
    """Every effect with its interval, and what nothing can be said of."""
    table = Table("what", "A", "B", "B / A", "interval", "")
    for one in effects:
        interval = f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(one.what, f"{one.before:.4g}", f"{one.after:.4g}", f"{one.ratio:.3f}", interval, one.found)
    console.print(table)
    if unknown:
        console.print(f"too few to say: {', '.join(unknown)}", style="dim")


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 where no regression is shown, 1 where one is, 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument("--baseline", type=Path, nargs="*", default=[], help="more runs of A")
    parser.add_argument("--candidate", type=Path, nargs="*", default=[], help="more runs of B")
    parser.add_argument("--tolerance", type=float, default=0.05, help="change that does not matter (default: 0.05)")
    parser.add_argument("--block-s", type=float, default=5.0, help="seconds of a block (default: %(default)s)")
    options, console = parser.parse_args(arguments), Console()
    try:
        first, before = read_side([options.before, *options.baseline], options.block_s)
        second, after = read_side([options.after, *options.candidate], options.block_s)
        if load_of(first["options"]) != load_of(second["options"]):
            raise FileError("A and B are of different loads: users, shape and mix must be the same")
        if min(len(before), len(after)) < LEAST_BLOCKS:
            raise FileError(f"too short: {len(before)} and {len(after)} blocks, {LEAST_BLOCKS} are needed")
    except FileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if first["machine"]["processor"] != second["machine"]["processor"]:
        console.print("A and B are of different machines: what differs may be they", style="yellow")
    effects, unknown = effects_of(before, after, tolerance=options.tolerance)
    show(effects, unknown, console)
    more = [more_wrong(before, after), more_shed(before, after, options.tolerance)]
    return conclude(effects, [each for each in more if each], options.tolerance, console)


def conclude(effects: Sequence[Effect], more: Sequence[str], tolerance: float, console: Console) -> int:
    """Say it in words; returns the exit status."""
    slower = [one for one in effects if one.found == "regression"]
    for one in slower:
        console.print(
            f"[red]regression[/red]: {one.what} is {one.ratio:.2f} times what it was ({one.low:.2f} to {one.high:.2f})"
        )
    for each in more:
        console.print(f"[red]regression[/red]: {each}")
    if slower or more:
        return 1
    blind = max((max(one.high, 1 / one.low) for one in effects), default=float("nan"))
    console.print(
        f"no regression shown; each interval holds with 95 % together, the widest reaches a factor of {blind:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
