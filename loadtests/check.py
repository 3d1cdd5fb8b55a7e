"""`python -m loadtests.check reports/load`: the CSV report of a Locust run against `thresholds.toml`.

Prints requests, failures, latencies and images a second by name, and how much longer explaining takes than predicting.
The status is 1 where a threshold is missed.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

THRESHOLDS = Path(__file__).with_name("thresholds.toml")


class Thresholds(BaseModel):
    """`failure_ratio` 0..1 over all requests; `p95_ms` by endpoint (predict, explain), for every row of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failure_ratio: float
    least_requests: int
    p95_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One name of the report: `endpoint images model [overlay]`. Latencies in ms."""

    name: str
    requests: int
    failures: int
    median: float
    p95: float
    per_second: float

    @property
    def endpoint(self) -> str:
        """`predict`, `explain` or `models`."""
        return self.name.split()[0]

    @property
    def images(self) -> int:
        """Images of one request."""
        words = self.name.split()
        return int(words[1]) if len(words) > 1 else 0


def read_rows(report: Path) -> list[Row]:
    """Rows of `REPORT_stats.csv`, without the sum.

    Raises:
        FileNotFoundError: Locust has not written it.
        KeyError: it is not a report of Locust's.
    """
    with Path(f"{report}_stats.csv").open(newline="") as file:
        return [
            Row(
                name=line["Name"],
                requests=int(line["Request Count"]),
                failures=int(line["Failure Count"]),
                median=_milliseconds(line["Median Response Time"]),
                p95=_milliseconds(line["95%"]),
                per_second=float(line["Requests/s"]),
            )
            for line in csv.DictReader(file)
            if line["Name"] != "Aggregated"
        ]


def faults(rows: Iterable[Row], thresholds: Thresholds) -> list[str]:
    """Every threshold that is missed, in words."""
    rows = list(rows)
    requests, failures = sum(row.requests for row in rows), sum(row.failures for row in rows)
    found: list[str] = []
    if requests < thresholds.least_requests:
        found.append(f"{requests} requests are too few, {thresholds.least_requests} are needed")
    if failures > thresholds.failure_ratio * requests:
        found.append(f"{failures} of {requests} requests failed")
    for row in rows:
        limit = thresholds.p95_ms.get(row.endpoint)
        if limit is not None and not row.p95 <= limit:
            found.append(f"{row.name}: 95 % within {row.p95:.0f} ms, the threshold is {limit:.0f} ms")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 0 where every threshold holds, 1 where one is missed, 2 where there is no report."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.check", description=__doc__)
    parser.add_argument("report", type=Path, help="what was given to locust as --csv")
    parser.add_argument("--thresholds", type=Path, default=THRESHOLDS)
    options = parser.parse_args(arguments)
    try:
        thresholds = Thresholds.model_validate(tomllib.loads(options.thresholds.read_text()))
        rows = read_rows(options.report)
    except (FileNotFoundError, KeyError) as error:
        sys.stderr.write(f"no report to check: {error}\n")
        return 2
    _print(rows)
    missed = faults(rows, thresholds)
    for fault in missed:
        sys.stderr.write(f"missed: {fault}\n")
    return 1 if missed else 0


def _print(rows: list[Row]) -> None:
    table = Table("request", "requests", "failed", "median ms", "95 % ms", "images/s", title="load test")
    for row in rows:
        rate = f"{row.per_second * row.images:.1f}"
        table.add_row(row.name, str(row.requests), str(row.failures), f"{row.median:.0f}", f"{row.p95:.0f}", rate)
    console = Console()
    console.print(table)
    medians = {row.name: row.median for row in rows}
    for name, median in medians.items():
        explain = medians.get(name.replace("predict", "explain", 1))
        if name.startswith("predict") and explain is not None and median > 0:
            console.print(f"{name.removeprefix('predict ')}: explain takes {explain / median:.2f} times predict")


def _milliseconds(text: str) -> float:
    return float("nan") if text == "N/A" else float(text)


if __name__ == "__main__":
    sys.exit(main())
