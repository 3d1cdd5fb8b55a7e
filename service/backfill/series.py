"""Whole series instead of single images: one answer for each, as DICOM objects and as a row for each slice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.backfill.arrow import Table
from service.backfill.explaining import Answer, Explainer, Explaining
from service.backfill.files import failed_row
from service.backfill.ledger import keys_of, replace
from service.backfill.reading import COLUMNS, Reading, shown_name
from service.deidentify import deidentify
from service.dicom_results.report import report_texts
from service.dicom_results.results import make_results
from service.images.tags import uid_of
from service.orientation import plane_of
from service.registry import Costs, Model
from service.scheduling import JOB, EngineThread, Lane, Waiting
from service.series.reading import Series, read_series
from service.studies.answering import StudyWish, answer_series

_UIDS = {
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
}
Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Objects:
    """What is made of a series.

    Attributes:
        wish: which objects, and how; its model, method and target are those of the run.
        folder: where they go: a folder for each entry, a file for each object, named by its own UID.
        secret: take the patient out of them (PS3.15 Annex E), and hash UIDs with it; None: as the source has it.
    """

    wish: StudyWish
    folder: Path
    secret: bytes | None


class SeriesExplainer:
    """One model, ready; Ray gives it one shard after another, of which it reads the entries itself.

    The files of an object are written before the rows of its shard: a shard that is done anew writes the same names
    again, because the objects' UIDs follow from source, model and method.

    Args:
        explaining: the model.
        reading: the source.
        objects: what is made.
    """

    def __init__(self, explaining: Explaining, reading: Reading, objects: Objects) -> None:
        self._explainer = Explainer(explaining)
        self._reading, self._objects = reading, objects
        bundle, engine = self._explainer.bundle, self._explainer.engine
        self._model = Model(bundle, engine, Costs(0, 0))
        self._view = Waiting(engine, Lane(EngineThread(), JOB), lambda: False)

    def __call__(self, places: dict[str, NDArray[np.int64]]) -> Iterator[Table]:
        """Answer shards; places as for `read_shards`, the rows as those of `Explainer`."""
        for shard in self._reading.shards[places["id"]].tolist():
            keys = keys_of(self._reading.folder, shard)
            for entry, key in enumerate(keys):
                rows = list(self._entry(key))
                common = {"shard": shard, "entries": len(keys), "entry": entry}
                yield self._table(rows, {**common, "source": shown_name(key, self._reading.secret)})

    def _entry(self, key: str) -> Iterator[tuple[Values, Answer | None]]:
        try:
            found = read_series(self._reading.source.contents(key))
            rows = list(itertools.chain.from_iterable(self._series(one, key) for one in found))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a series is its row, and never ends the run
            rows = [(failed_row(error), None)]
        yield from rows or [({"problem": "no-pixel-data", "detail": "there is no instance"}, None)]

    def _series(self, series: Series, key: str) -> Iterator[tuple[Values, Answer | None]]:
        secret = self._reading.secret
        ours: Values = {
            "study_instance_uid": shown_name(series.study, secret),
            "series_instance_uid": shown_name(series.series, secret),
        }
        for one in series.left_out:
            uid = shown_name(one.sop_instance, secret)
            yield {**ours, "sop_instance_uid": uid, "problem": "left-out", "detail": one.reason}, None
        if not series.slices:
            return
        answer = answer_series(series, self._model, self._objects.wish, self._view, lambda share: None)
        made = make_results(answer, self._objects.wish.kinds, self._objects.wish.making)
        self._write(made.objects, key, report_texts(answer))
        notes = [*series.notes, *answer.notes, *made.notes]
        for one, found in zip(series.slices, answer.slices, strict=True):
            region, uids = found.region, {name: uid_of(one.header, keyword) for name, keyword in _UIDS.items()}
            values: Values = {name: shown_name(uid, secret) for name, uid in uids.items() if uid}
            values |= {
                "frame": one.number,
                "warnings": [*one.frame.warnings, *found.assessment.warnings(), *notes],
                "region": [region.x, region.y, region.width, region.height],
                "unseen": found.unseen,
                "plane": plane_of(one.orientation),
            }
            yield values, Answer(found.prediction, found.saliency, found.assessment)

    def _write(self, objects: list[Dataset], key: str, safe_texts: list[str]) -> None:
        # an address may be no name of a folder; the objects themselves refer to their source
        folder = self._objects.folder / hashlib.sha256(key.encode()).hexdigest()[:32]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for ds in objects:
            secret = self._objects.secret
            ready = ds if secret is None else deidentify(ds, secret, safe_texts)
            replace(folder / f"{ready.SOPInstanceUID}.dcm", _content(ready))

    def _table(self, rows: list[tuple[Values, Answer | None]], common: Values) -> Table:
        last = len(rows) - 1
        whole = [
            {**common, "number": number, "rows_of_entry": len(rows) if number == last else 0, **values}
            for number, (values, _) in enumerate(rows)
        ]
        columns: dict[str, Any] = {
            field.name: pa.array([row.get(field.name) for row in whole], field.type) for field in COLUMNS
        }
        return pa.table(columns | self._explainer.columns([answer for _, answer in rows]))


def _content(ds: Dataset) -> bytes:
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()
