"""The report of a load test: a page with plots, tables as CSV, everything as JSON.

python -m loadtests.report reports/load/load.json OUT     the files of a result anew
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.mix import FileError
from loadtests.plots import pictures
from loadtests.result import read_result
from loadtests.samples import Sample, samples_of
from service.schemas import RESEARCH_NOTICE
from training.files import write_atomically
from training.study.document import Block, Document, Heading, Table, Text
from training.study.web_page import web_page

FILES = ("load.json", "index.html", "operations.csv", "verdict.csv", "samples.csv", "server.csv")


def write_report(result: Mapping[str, Any], out: Path) -> None:
    """Write `FILES` into a folder, each whole or not at all."""
    samples = samples_of(result["samples"])
    contents = {
        "load.json": json.dumps(result).encode() + b"\n",
        "index.html": web_page(_document(result, samples)),
        "operations.csv": _csv(result["operations"]),
        "verdict.csv": _csv(result["verdict"]),
        "samples.csv": _csv(_sample_rows(samples)),
        "server.csv": _csv(_server_rows(result["server"])),
    }
    for name in FILES:
        write_atomically(out / name, contents[name])


def _document(result: Mapping[str, Any], samples: Sequence[Sample]) -> Document:
    where, options = result["machine"], result["options"]
    note = f" {where['note']}." if where["note"] else ""
    outcome = "All objectives are met." if result["met"] else "Objectives are missed."
    blocks: list[Block] = [
        Text(
            f"{outcome} {options['users']} users, shape {options['shape']}, {options['seconds']:g} s, of which the "
            f"first {options['warm_up_s']:g} s are not judged. {where['processor']}, {where['cores']} cores, "
            f"{where['date']}.{note}"
        ),
        Heading("Objectives"),
        _verdict_table(result["verdict"]),
        Heading("Operations"),
        _table(result["operations"]),
        Heading("Where the service spends its time"),
        Text("Seconds in each stage over the whole run, of all requests together, by the service's own metrics."),
        _table([{"stage": name, "seconds": value} for name, value in result["stage_seconds"].items()]),
    ]
    for picture in pictures(samples, result["server"]):
        blocks += [Heading(picture.description), picture]
    return Document("Load test of Radiolucent", RESEARCH_NOTICE, tuple(blocks))


def _verdict_table(verdict: Iterable[Mapping[str, Any]]) -> Table:
    rows = (
        (
            row["objective"],
            _cell(row["measured"]),
            f"{'at least' if row['least'] else 'at most'} {row['limit']:g}",
            row["unit"],
            "met" if row["met"] else "MISSED",
        )
        for row in verdict
    )
    return Table(("objective", "measured", "limit", "unit", "verdict"), tuple(rows))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    head = tuple(rows[0]) if rows else ("nothing",)
    return Table(head, tuple(tuple(_cell(row[name]) for name in head) for row in rows))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _sample_rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    start = min((sample.at for sample in samples), default=0.0)
    return [
        {
            "seconds": round(sample.at - start, 3),
            "operation": sample.operation,
            "outcome": sample.outcome,
            "ms": sample.ms,
            "images": sample.images,
        }
        for sample in samples
    ]


def _server_rows(server: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "at": at,
            "cpu_cores": server["cpu"][number],
            "rss_mib": server["rss_mib"][number],
            "batch_images": server["batch"][number],
            **{f"in_{stage}": values[number] for stage, values in server["stages"].items()},
        }
        for number, at in enumerate(server["at"])
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue().encode()


def main(arguments: list[str] | None = None) -> int:
    """Entry point: 2 where there is no result."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        result, _ = read_result(options.result)
    except FileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    write_report(result, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
