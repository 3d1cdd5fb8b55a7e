"""The coordinator's folder: images, and a `cases.csv` that says what they are.

    file,truth,training,region
    001.png,glioma,yes,
    more/002.dcm,no_tumor,no,12 0 480 480

`training` is yes or no. `region`, which may be left out, is x, y, width and height in pixels: only this part of the
image is shown to readers and model, so that burnt-in text stays out. Further columns are refused: they may be misspelt.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from service.errors import InvalidParameter

_COLUMNS = ("file", "truth", "training")
_YES, _NO = ("yes", "1", "true"), ("no", "0", "false", "")

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ListedCase:
    """A line of `cases.csv`; `line` counts from 1, `region` is x, y, width, height in pixels."""

    line: int
    file: Path
    sha256: str
    truth: str
    training: bool
    region: Box | None


def read_cases(table: Path, folder: Path, classes: Sequence[str]) -> list[ListedCase]:
    """Read and check a list of cases; the images themselves are not decoded.

    Args:
        table: CSV in UTF-8, with commas or semicolons.
        folder: that `file` is relative to.
        classes: that `truth` may be.

    Raises:
        InvalidParameter: everything that is wrong, with line numbers; no file is named.
        FileNotFoundError: there is no such table.
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        lines = file.read().splitlines()
    delimiter = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
    header = set(rows.fieldnames or ())
    if not header >= set(_COLUMNS) or header - {*_COLUMNS, "region"}:
        raise InvalidParameter("cases.csv: the columns must be file, truth, training and, where it is needed, region")
    cases: list[ListedCase] = []
    faults: list[str] = []
    for row in _rows(rows):
        try:
            cases.append(_case(rows.line_num, row, folder, classes))
        except ValueError as error:
            faults.append(f"cases.csv, line {rows.line_num}: {error}")
    faults += _repeated(cases)
    if not faults and all(case.training for case in cases):
        faults.append("cases.csv: there is no case besides training cases")
    if faults:
        raise InvalidParameter("\n".join(faults))
    return cases


def list_sha256(cases: Sequence[ListedCase]) -> str:
    """SHA-256 over what makes the list: files, truth, training and regions, in order."""
    lines = [repr(astuple(case)[2:]) for case in cases]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _rows(rows: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    try:
        for row in rows:
            yield {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    except csv.Error:
        raise InvalidParameter(f"cases.csv, line {rows.line_num}: not a line of a CSV file") from None


def _case(line: int, row: dict[str, str], folder: Path, classes: Sequence[str]) -> ListedCase:
    file = (folder / row["file"]).resolve()
    if not row["file"] or not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ValueError("there is no such file in the folder")
    if row["truth"] not in classes:
        raise ValueError(f"truth must be one of {', '.join(classes)}")
    training = row["training"].lower()
    if training not in _YES + _NO:
        raise ValueError("training must be yes or no")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return ListedCase(line, file, digest, row["truth"], training in _YES, _box(row.get("region", "")))


def _box(text: str) -> Box | None:
    if not text:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split())
    except ValueError:
        raise ValueError("region must be four whole numbers: x y width height") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise ValueError("region must lie in the image")
    return x, y, width, height


def _repeated(cases: Sequence[ListedCase]) -> list[str]:
    first: dict[tuple[str, Box | None], int] = {}
    return [
        f"cases.csv, line {case.line}: the same image as in line {first[case.sha256, case.region]}"
        for case in cases
        if first.setdefault((case.sha256, case.region), case.line) != case.line
    ]
