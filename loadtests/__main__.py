"""`make load`: load the service with the mix of users, judge it by its objectives, write a report.

    python -m loadtests [--url URL] [--shape steps] [--seconds 600] [--users 40] [--processes 2]

A service is started for the occasion where none is ready at the URL and the URL is this machine's. The status is 1
where an objective is missed, 2 where nothing could be measured. Ctrl-C ends it early: what was measured is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.served import ROOT
from loadtests import mix, objectives
from loadtests.report import write_report
from loadtests.result import result_of
from loadtests.samples import samples_of
from loadtests.scrape import Scraper
from loadtests.serving import NothingMeasured, add_key_option, authorization, check_key, target, use_key
from loadtests.shapes import SHAPES

_GRACE_S = 120  # for requests that are on their way when the time is over


def locust_command(options: argparse.Namespace, url: str, users: int) -> list[str]:
    """Locust without its page, on this machine, with workers here (`--processes`) or elsewhere (`--expect-workers`)."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"]
    command += ["--only-summary", "--exit-code-on-error", "0", "--stop-timeout", str(_GRACE_S), "--host", url]
    command += ["--users", str(users), "--run-time", f"{options.seconds}s", "--shape", options.shape]
    if options.processes:
        command += ["--processes", str(options.processes), "--master-bind-port", str(options.port)]
        command += ["--master-port", str(options.port)]
    elif options.expect_workers:
        command += [
            "--master",
            "--expect-workers",
            str(options.expect_workers),
            "--master-bind-port",
            str(options.port),
        ]
    return command


def run_locust(command: list[str], settings: dict[str, str], seconds: float, log: Path, console: Console) -> int:
    """Run it with a progress bar, what it prints going to `log`; Ctrl-C ends it early and in order."""
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - Locust, by its own module name
            command, cwd=ROOT, env=os.environ | settings, stdout=file, stderr=file, start_new_session=True
        )
        start = time.monotonic()
        columns = (TextColumn("load"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} s"))
        try:
            with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
                task = progress.add_task("load", total=seconds)
                while process.poll() is None and time.monotonic() - start < seconds + 2 * _GRACE_S:
                    progress.update(task, completed=min(time.monotonic() - start, seconds))
                    time.sleep(0.2)
        except KeyboardInterrupt:
            console.print("stopping; what was measured is reported")
        finally:
            if process.poll() is None:
                process.terminate()
        return process.wait(_GRACE_S)


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Load, and everything about it as one document.

    Raises:
        FileError: mix or objectives cannot be used.
        NothingMeasured: Locust or the service did not do its part.
    """
    goals, kinds = objectives.read_objectives(options.objectives), mix.read_mix(options.mix)
    users = options.users or kinds.users
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    samples = out / "samples.partial"
    samples.unlink(missing_ok=True)
    settings = {"RADIOLUCENT_LOAD_MIX": str(options.mix.resolve()), "RADIOLUCENT_LOAD_SAMPLES": str(samples.resolve())}
    with target(options.url) as (url, pid):
        metrics = options.metrics or f"{url}/metrics"
        if missing := check_key(url, metrics):
            console.print(f"[yellow]{missing}[/yellow]")
        with Scraper(metrics, pid, authorization()) as scraper:
            command = locust_command(options, url, users)
            status = run_locust(command, settings, options.seconds, out / "locust.txt", console)
    if status or not samples.exists():
        raise NothingMeasured(f"Locust ended with status {status}; {out / 'locust.txt'} says why")
    found = samples_of(json.loads(samples.read_text()))
    samples.unlink()
    used = {
        "users": users,
        "seconds": options.seconds,
        "shape": options.shape,
        "processes": options.processes or options.expect_workers or 1,
        "warm_up_s": goals.warm_up_s,
        "mix": kinds.model_dump(mode="json", exclude_none=True),
    }
    return result_of(found, scraper.readings, goals, used, options.note)


def show(result: dict[str, Any], console: Console) -> None:
    """The verdict, and what each operation took."""
    table = Table("operation", "requests", "shed", "wrong", "p50 ms", "p95 ms", "p99 ms", title="load test")
    for row in result["operations"]:
        cells = [row[name] for name in ("requests", "shed", "wrong", "p50_ms", "p95_ms", "p99_ms")]
        table.add_row(row["operation"], *("" if cell is None else f"{cell:.0f}" for cell in cells))
    console.print(table)
    for row in result["verdict"]:
        if not row["met"]:
            measured = "nothing" if row["measured"] is None else f"{row['measured']:.4g}"
            bound = "at least" if row["least"] else "at most"
            console.print(f"[red]missed[/red]: {row['objective']}: {measured} {row['unit']}, {bound} {row['limit']:g}")
    met = sum(row["met"] for row in result["verdict"])
    console.print(f"{met} of {len(result['verdict'])} objectives met")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="default: %(default)s")
    parser.add_argument("--users", type=int, default=0, help="default: the sum of the mix's weights")
    parser.add_argument("--seconds", type=int, default=90, help="default: %(default)s")
    parser.add_argument("--shape", choices=SHAPES, default="constant", help="users over time")
    parser.add_argument("--mix", type=Path, default=Path(os.environ.get("RADIOLUCENT_LOAD_MIX", mix.SHIPPED)))
    parser.add_argument("--objectives", type=Path, default=objectives.SHIPPED)
    parser.add_argument("--processes", type=int, default=0, help="workers of Locust on this machine")
    parser.add_argument("--expect-workers", type=int, default=0, help="workers of Locust that will come from elsewhere")
    parser.add_argument("--port", type=int, default=5557, help="where Locust's workers come to (default: %(default)s)")
    parser.add_argument("--metrics", default="", help="URL of the metrics, where it is not URL/metrics")
    add_key_option(parser)
    parser.add_argument("--note", default="", help="what the figures depend on; part of the result")
    parser.add_argument("--out", type=Path, default=Path("reports/load"), help="folder (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 where every objective is met, 1 where one is missed, 2 where nothing could be measured."""
    options, console = parsed(arguments), Console()
    try:
        use_key(options)
        result = measure(options, console)
    except (mix.FileError, NothingMeasured) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    write_report(result, options.out)
    show(result, console)
    console.print(f"report: {options.out / 'index.html'}", soft_wrap=True)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
