"""What leaves the study: three files, which `python -m training study analyse` and any statistics program read.

study.json     the plan: design, seed, classes, model, method
cases.csv      one line a case: truth, what the model said, digest of the coordinator's file
readings.csv   one line an answered reading
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from service.errors import StudyConflict
from service.reader_study.opinion import ITEMS, Opinion
from service.reader_study.plan import FrozenCase, StudyPlan
from service.reader_study.session import Reading
from service.reader_study.store import Study, StudyStore

FILES = frozenset({"study.json", "cases.csv", "readings.csv"})
CASE_COLUMNS = ("case", "truth", "model_label", "model_probability", "model_score", "training", "file_sha256")
READING_COLUMNS = (
    *("reader", "case", "arm", "period", "position", "diagnosis", "confidence", "seconds"),
    *ITEMS,
    *("comment", "started_at", "answered_at", "training"),
)


def export(store: StudyStore, study: Study, out: Path) -> int:
    """Write the study as it stands into a folder, whole or not at all; an earlier export in its place is replaced.

    Args:
        store: the database.
        study: which one.
        out: folder, made where it is missing.

    Returns:
        How many readings were written: the answered ones.

    Raises:
        StudyConflict: the folder holds something else than an earlier export.
    """
    if out.exists() and not (out.is_dir() and {file.name for file in out.iterdir()} <= FILES):
        raise StudyConflict("the folder to write to holds something else than an export; name another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        _reading(reader, reading)
        for reader, readings in store.readings(study).items()
        for reading in readings
        if reading.answered is not None
    ]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        (made / "study.json").write_text(json.dumps(_study(study), indent=1, ensure_ascii=False) + "\n", "utf-8")
        _write(made / "cases.csv", CASE_COLUMNS, (_case(case, study.plan) for case in store.cases(study)))
        _write(made / "readings.csv", READING_COLUMNS, lines)
        if out.exists():
            out.rename(Path(scratch) / "old")
        made.rename(out)
    return len(lines)


def _study(study: Study) -> dict[str, object]:
    plan = study.plan
    return {
        "name": plan.name,
        "seed": plan.seed,
        "design": plan.design,
        "washout_days": plan.washout_days,
        "classes": list(plan.class_names()),
        "positive": [one.name for one in plan.classes if one.positive],
        "items": list(ITEMS),
        "model": plan.model.model_dump(),
        "method": plan.method,
        "created": _iso(study.created),
    }


def _case(case: FrozenCase, plan: StudyPlan) -> Sequence[object]:
    found = case.answer
    score = sum(found.probabilities[one.name] for one in plan.classes if one.positive)
    probability = found.probabilities[found.label]
    shown = (case.code, case.truth, found.label, f"{probability:.6f}", f"{min(score, 1.0):.6f}")
    return (*shown, int(case.training), case.file_sha256)


def _reading(reader: str, reading: Reading) -> Sequence[object]:
    opinion = Opinion.model_validate_json(reading.opinion)
    return (
        *(reader, reading.case, reading.arm, reading.period, reading.position),
        *(opinion.diagnosis, opinion.confidence, f"{max(opinion.active_seconds, 0.001):.3f}"),
        *(opinion.ratings.get(item, "") for item in ITEMS),
        *(opinion.comment, _iso(reading.started), _iso(reading.answered), int(reading.training)),
    )


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _iso(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
