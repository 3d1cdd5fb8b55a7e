"""The readings and the main results as CSV, for R and for spreadsheets: `read.csv` needs no options."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

import numpy as np

from training.study.analysis import Analysis
from training.study.readings import Readings
from training.study.records import ARMS


def readings_csv(readings: Readings) -> bytes:
    """One line for each analysed reading.

    What is missing is `NA`; `correct`, `called` (disease) and `followed` (the model's class) are 0 or 1.
    """
    classes = readings.study.classes
    head = ["reader", "case", "arm", "period", "truth", "model", "diagnosis", "correct", "called", "followed"]
    head += ["confidence", "seconds", *readings.study.items]
    flags = [readings.correct, readings.called, readings.followed]
    lines: list[list[object]] = []
    for arm, reader, case in np.argwhere(np.isfinite(readings.diagnosis)).tolist():
        place = (arm, reader, case)
        codes = readings.truth[case], readings.model[case], readings.diagnosis[place]
        ratings = readings.ratings[:, reader, case] if arm else np.full(len(readings.study.items), np.nan)
        lines.append(
            [
                readings.readers[reader],
                readings.cases[case],
                ARMS[arm],
                int(readings.period[place]),
                *(classes[int(code)] for code in codes),
                *(int(values[place]) for values in flags),
                f"{readings.confidence[place]:g}",
                f"{readings.seconds[place]:.3f}",
                *("NA" if np.isnan(rating) else int(rating) for rating in ratings),
            ]
        )
    return _csv(head, lines)


def results_csv(analysis: Analysis) -> bytes:
    """The pooled results, one line for each figure and arm, and one for the difference."""
    lines: list[list[object]] = []
    for name, found in analysis.pooled.items():
        for arm, value in (("without", found.without), ("with", found.with_)):
            lines.append([name, arm, value.value, value.low, value.high, "NA", "NA", "NA", found.cases])
        gap = found.difference
        kind = "ratio" if name == "seconds" else "difference"
        tests = ("NA" if number is None else number for number in (gap.t, gap.freedom, gap.p))
        lines.append([name, kind, gap.value, gap.low, gap.high, *tests, found.cases])
    return _csv(["figure", "arm", "value", "low", "high", "t", "df", "p", "cases"], lines)


def _csv(head: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    buffer = StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return buffer.getvalue().encode()
