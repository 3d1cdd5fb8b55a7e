"""The tasks before the model: fetch, decode and crop the files of a shard, in batches. No model is needed here."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.assessment import refusals
from service.backfill.arrow import Table
from service.backfill.files import Source, failed_row
from service.backfill.ledger import keys_of
from service.images.dicom import decode, describe
from service.images.parsing import parse
from service.images.reading import read_frames, sniff
from service.images.tags import uid_of
from service.manifest import Kind
from service.orientation import plane_of, turn_code
from service.preprocessing import prepare
from service.types import Frame, Item, PreprocessingSpec

_AHEAD, _THREADS = 8, 4  # files fetched before their turn, and at once: a store answers late, and a disk may, too
_NICE = 10  # an engine's threads wait for each other: it goes first where they share cores, and idles where it must
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

COLUMNS = pa.schema(
    [
        ("shard", pa.int32()),
        ("entries", pa.int32()),  # of the shard
        ("entry", pa.int32()),
        ("number", pa.int32()),  # of the row in its entry
        ("rows_of_entry", pa.int32()),  # in its last row, else 0
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("study_instance_uid", pa.string()),
        ("series_instance_uid", pa.string()),
        ("sop_instance_uid", pa.string()),
        ("frame", pa.int32()),
        ("warnings", pa.list_(pa.string())),
        ("problem", pa.string()),
        ("detail", pa.string()),
        ("region", pa.list_(pa.float32(), 4)),
        ("unseen", pa.float32()),
        ("plane", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reading tasks are told.

    Attributes:
        source: the archive.
        folder: of the ledger, under the same path on every node.
        shards: numbers of those that wait; a task is given places in it.
        spec: how the model wants its input.
        kind: of images that the model is for.
        batch: images that are handed on together.
        secret: hash addresses and UIDs with it; None keeps them.
    """

    source: Source
    folder: Path
    shards: NDArray[np.int64]
    spec: PreprocessingSpec
    kind: Kind
    batch: int
    secret: bytes | None


@dataclass(frozen=True, slots=True)
class _Row:
    """A frame with what speaks against it, or the reason why there is none."""

    values: dict[str, object]
    item: Item | None = None
    refusals: Sequence[str] = ()


def read_shards(places: dict[str, NDArray[np.int64]], reading: Reading) -> Iterator[Table]:
    """Read shards.

    Args:
        places: `{"id": [...]}` in `reading.shards`.
        reading: see there.

    Yields:
        Tables of `reading.batch` rows, the last of a shard of fewer: `COLUMNS`, `pixels`, uint8 `[size, size]` as bytes
        of one length (zeros in failed rows), `turn`, how they were turned (`service.orientation.turn_code`), and
        `refusals`, what speaks against them without a model. What is wrong with an entry is a row with `problem`.
    """
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    for shard in reading.shards[places["id"]].tolist():
        waiting: list[_Row] = []
        for row in _rows_of_shard(shard, reading):
            waiting.append(row)
            if len(waiting) == reading.batch:
                yield _table(waiting, reading.spec.size)
                waiting = []
        if waiting:
            yield _table(waiting, reading.spec.size)


def _rows_of_shard(shard: int, reading: Reading) -> Iterator[_Row]:
    keys = keys_of(reading.folder, shard)
    for entry, (key, contents) in enumerate(zip(keys, _fetched(reading.source, keys), strict=True)):
        common = {"shard": shard, "entries": len(keys), "entry": entry, "source": shown_name(key, reading.secret)}
        last: _Row | None = None
        number = 0
        for row in _rows_of_entry(contents, reading):
            if last is not None:
                yield last
            last = replace(row, values={**common, "number": number, "rows_of_entry": 0, **row.values})
            number += 1
        if last is not None:
            yield replace(last, values={**last.values, "rows_of_entry": number})


def _fetched(source: Source, keys: list[str]) -> Iterator[Iterable[bytes | Exception]]:
    """The contents of each entry, in order; an exception stands for what could not be fetched."""
    if not source.single:
        for key in keys:
            yield _caught(source, key)
        return
    waiting: deque[Future[list[bytes | Exception]]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for key in keys:
            waiting.append(threads.submit(lambda key=key: list(_caught(source, key))))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _caught(source: Source, key: str) -> Iterator[bytes | Exception]:
    try:
        yield from source.contents(key)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an entry is its row, and never ends the run
        yield error


def _rows_of_entry(contents: Iterable[bytes | Exception], reading: Reading) -> Iterator[_Row]:
    for content in contents:
        if isinstance(content, Exception):
            yield _Row(failed_row(content))
            continue
        values: dict[str, object] = {"sha256": hashlib.sha256(content).hexdigest()}
        try:
            frames, uids = _decoded(content)
            values |= {name: shown_name(uid, reading.secret) for name, uid in uids.items() if uid}
            rows = [
                _answerable(number, frame, prepare(frame, reading.spec), values, reading.kind)
                for number, frame in enumerate(frames, 1)
            ]
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a file is its row, and never ends the run
            rows = [_Row(values | failed_row(error))]
        yield from rows


def _decoded(content: bytes) -> tuple[list[Frame], dict[str, str]]:
    if sniff(content) != "dicom":
        return read_frames(content, ""), {}
    ds = parse(content)
    uids = {
        name: uid_of(ds, keyword)
        for name, keyword in zip(("study_instance_uid", "series_instance_uid", "sop_instance_uid"), _UIDS, strict=True)
    }
    return decode(ds, describe(ds), ""), uids


def _answerable(number: int, frame: Frame, item: Item, values: dict[str, object], kind: Kind) -> _Row:
    region = item.region
    return _Row(
        {
            **values,
            "frame": number,
            "warnings": list(frame.warnings),
            "region": [region.x, region.y, region.width, region.height],
            "unseen": item.unseen,
            "plane": plane_of(frame.orientation),
        },
        item,
        refusals(frame, item, kind),
    )


def shown_name(name: str, secret: bytes | None) -> str:
    """An address or a UID as the results have it.

    With a secret it is 32 hexadecimal digits of its HMAC-SHA256, the first 12 of which are what the service's logs
    have for a UID (`service.observability.hashed_uid`).
    """
    return name if secret is None else hmac.digest(secret, name.encode(), "sha256").hex()[:32]


def _table(rows: list[_Row], size: int) -> Table:
    columns: dict[str, Any] = {
        field.name: pa.array([row.values.get(field.name) for row in rows], field.type) for field in COLUMNS
    }
    pixels = np.zeros((len(rows), size, size), np.uint8)
    for place, row in enumerate(rows):
        if row.item is not None:
            pixels[place] = row.item.pixels
    one = pa.binary(size * size)
    turns = [0 if row.item is None else turn_code(row.item.turn) for row in rows]
    columns["turn"] = pa.array(turns, pa.uint8())
    columns["refusals"] = pa.array([list(row.refusals) for row in rows], pa.list_(pa.string()))
    columns["pixels"] = pa.FixedSizeBinaryArray.from_buffers(one, len(rows), [None, pa.py_buffer(pixels)])
    return pa.table(columns)
