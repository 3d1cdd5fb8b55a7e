"""Good and bad requests for as long as is wished, and the verdict on memory: `python -m tests.soak --minutes 20`.

First the largest requests of each kind, so that what the largest batch needs is there; then clients send what
`tests.soak.mix` says. Every few seconds are sampled, of the service's processes together: anonymous memory, open files,
threads; and the bytes of its state folder and of its temporary folder. With `--device cuda` all memory in use on the
first GPU is sampled, too, and a shipped model answers, for the one that breaks on purpose does so on the CPU alone.
Over the second half of the run none of them may grow by more than a bound, by the upper end of the interval of a robust
slope of what is there even at quiet moments. Ends with 1 where one does, or where an answer was not one of those that
are right. Ctrl-C ends the run early, with its verdict. `--leak` shows that a leak is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest does

from serving import Service
from tqdm import tqdm

from benchmarks.harness import add_device, gpu_memory, machine, save
from service.series.selection import SHIPPED_RULES
from service.settings import SHIPPED_MODELS
from tests.faults.load import MODEL as BRITTLE
from tests.faults.scene import stage
from tests.soak.memory import anonymous_mib, processes_of
from tests.soak.mix import LONGEST_S, MIX, UNHURRIED, Kind, failing, warm_up
from tests.soak.verdict import flatness

MIB = 2**20
_LEAKING = Path(__file__).parent / "leaking"
BOUNDS = {"memory_mib": 16.0, "files": 16.0, "threads": 8.0, "state_mib": 8.0, "temporary_mib": 8.0}
ON_CUDA = {"gpu_mib": 16.0}
SHIPPED = "brain-mri-resnet50"


@dataclass(slots=True)
class Soak:
    """A run so far."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    unexpected: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))


async def soak(minutes: float, clients: int, seed: int, leak: int = 0, device: str = "cpu") -> Soak:
    """Run for so long, or until it is interrupted; the worker leaks `leak` KiB a second on purpose."""
    run, stop = Soak(), asyncio.Event()
    leaking = {"PYTHONPATH": str(_LEAKING), "SOAK_LEAK_KIB": str(leak)} if leak else {}
    settings, model, mix = UNHURRIED | leaking | {"RADIOLUCENT_DEVICE": device}, BRITTLE, set(MIX)
    if device == "cuda":
        settings |= {"RADIOLUCENT_MODELS": str(SHIPPED_MODELS), "RADIOLUCENT_RULES": str(SHIPPED_RULES)}
        model, mix = SHIPPED, mix - {failing}
    with tempfile.TemporaryDirectory(prefix="radiolucent-soak-") as name:
        async with (
            stage({"TMPDIR": name} | settings) as service,
            httpx.AsyncClient(base_url=service.address, timeout=LONGEST_S) as client,
        ):
            await warm_up(client, model, mix)
            tasks = [asyncio.create_task(_send(client, run, stop, f"{seed}:{n}", model, mix)) for n in range(clients)]
            with contextlib.suppress(asyncio.CancelledError):
                await _watch(service, Path(name), run, 60 * minutes, device)
            stop.set()
            await asyncio.gather(*tasks)
    return run


async def _send(
    client: httpx.AsyncClient, run: Soak, stop: asyncio.Event, seed: str, model: str, mix: Collection[Kind]
) -> None:
    chance = random.Random(seed)
    kinds = [kind for kind in MIX if kind in mix]
    shares = [MIX[kind][0] for kind in kinds]
    while not stop.is_set():
        (kind,) = chance.choices(kinds, shares)
        try:
            status = str((await kind(client, chance, model)).status_code)
        except httpx.TransportError as error:
            status = type(error).__name__
        run.outcomes[f"{kind.__name__} {status}"] += 1
        if status not in map(str, MIX[kind][1]):
            run.unexpected[f"{kind.__name__} {status}"] += 1


async def _watch(service: Service, temporary: Path, run: Soak, seconds: float, device: str) -> None:
    start, pause = perf_counter(), max(1.0, seconds / 1000)
    with tqdm(total=round(seconds), unit="s") as bar:
        while (now := perf_counter() - start) < seconds:
            run.seconds.append(round(now, 1))
            for name, value in _sample(service, temporary, device).items():
                run.samples[name].append(value)
            bar.update(round(now) - bar.n)
            bar.set_postfix(requests=run.outcomes.total(), MiB=run.samples["memory_mib"][-1])
            await asyncio.sleep(pause)


def _sample(service: Service, temporary: Path, device: str) -> dict[str, float]:
    found = dict.fromkeys(BOUNDS, 0.0)
    for process in processes_of(service.supervisor):
        with contextlib.suppress(psutil.NoSuchProcess):  # a decoder's child ends at any time
            found["memory_mib"] += anonymous_mib(process)
            found["files"] += process.num_fds()
            found["threads"] += process.num_threads()
    found["state_mib"], found["temporary_mib"] = _size(service.log.parent / "state"), _size(temporary)
    if device == "cuda":
        found["gpu_mib"] = gpu_memory() / MIB
    return {name: round(value, 2) for name, value in found.items()}


def _size(folder: Path) -> float:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.lstat().st_size
    return size / MIB


def main() -> int:
    """Run, print, and write --json.

    Returns:
        0 where everything stayed flat and every answer was right, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="default: %(default)s; 1440 are a day")
    parser.add_argument("--clients", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--leak", type=int, default=0, metavar="KIB", help="a second, leaked by the worker on purpose")
    add_device(parser)
    options = parser.parse_args()
    run = asyncio.run(soak(options.minutes, options.clients, options.seed, options.leak, options.device))
    bounds = BOUNDS | (ON_CUDA if options.device == "cuda" else {})
    verdicts = {name: flatness(run.seconds, run.samples[name], bound) for name, bound in bounds.items()}
    for name, one in verdicts.items():
        said = f"{name}: {run.samples[name][-1]:.1f}, grew by {one.growth:.1f} ({one.low:.1f} to {one.high:.1f})"
        sys.stdout.write(f"{'yes' if one.flat else 'NO '} {said}, at most {one.bound:g}\n")
    sys.stdout.write(f"{run.outcomes.total()} requests, not right: {dict(run.unexpected) or 'none'}\n")
    step = max(1, len(run.seconds) // 60)
    save(
        options,
        machine(options.device, len(os.sched_getaffinity(0))),
        requests=run.outcomes.total(),
        outcomes=dict(sorted(run.outcomes.items())),
        unexpected=dict(run.unexpected),
        seconds=run.seconds[::step],
        samples={name: values[::step] for name, values in run.samples.items()},
        verdicts={name: asdict(one) | {"flat": one.flat} for name, one in verdicts.items()},
    )
    return 0 if all(one.flat for one in verdicts.values()) and not run.unexpected else 1


if __name__ == "__main__":
    sys.exit(main())
