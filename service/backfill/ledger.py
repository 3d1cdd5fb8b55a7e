"""What is to be done and what is done: a folder that may be left at any moment, and gone on with.

    run.json                what was asked; another question needs another folder
    listing/000000.parquet  keys of a shard's entries; the listing is complete when `listing.json` is there
    results/000000.parquet  the answers of that shard, complete; the folder is one Parquet data set
    lock                    held while a process works here; a process that ends, however it ends, lets go

Only one process writes. Every file is written beside its place, flushed to disk, and renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from service.backfill.arrow import Table, compute
from service.backfill.files import Entry
from service.errors import InvalidParameter, RunConflict
from service.instance_file import sync_folder

_NUMBER = "{:06d}.parquet"


@dataclass(frozen=True, slots=True)
class Listing:
    """How much there is; `images` as the entries announce them."""

    shards: int
    entries: int
    images: int


class Ledger:
    """The folder of one run.

    Args:
        folder: made where it is missing, for this user alone: what is in it tells of patients.
        asked: all that the answers depend on, as JSON.

    Raises:
        RunConflict: something else was asked when the folder was begun, or another process works here.
    """

    def __init__(self, folder: Path, asked: Mapping[str, object]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._lock = _lock(self.folder / "lock")
        try:
            (self.folder / "results").mkdir(mode=0o700, exist_ok=True)
            self._begin(dict(asked))
        except BaseException:
            self.close()
            raise

    def _begin(self, asked: dict[str, object]) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            replace(path, (json.dumps(asked, indent=1) + "\n").encode())
            return
        before: dict[str, object] = json.loads(path.read_bytes())
        differing = sorted(name for name in asked.keys() | before.keys() if asked.get(name) != before.get(name))
        if differing:
            raise RunConflict(f"the folder holds answers to another question; what differs: {', '.join(differing)}")

    def close(self) -> None:
        """Let another process work here."""
        self._lock.close()

    @property
    def listing(self) -> Listing | None:
        """None while it is not complete."""
        path = self.folder / "listing.json"
        return Listing(**json.loads(path.read_bytes())) if path.exists() else None

    def list_entries(self, entries: Iterable[Entry], size: int, told: Callable[[int], None]) -> Listing:
        """Write the listing; one that was interrupted is begun anew.

        Args:
            entries: all there is.
            size: images of a shard; an entry of more is a shard by itself.
            told: the number of entries so far.

        Raises:
            InvalidParameter: there are none; the next run lists again.
        """
        folder = self.folder / "listing"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        shards = count = images = 0
        for shard in _shards(entries, size):
            replace(listing_file(self.folder, shards), _parquet(pa.table({"key": [entry.key for entry in shard]})))
            shards, count, images = shards + 1, count + len(shard), images + sum(entry.images for entry in shard)
            told(count)
        if not count:
            raise InvalidParameter("the source holds nothing that could be explained")
        made = Listing(shards, count, images)
        replace(self.folder / "listing.json", json.dumps(asdict(made)).encode())
        return made

    def waiting(self, listing: Listing) -> list[int]:
        """Numbers of the shards without results, ascending."""
        done = {path.name for path in self._results()}
        return [number for number in range(listing.shards) if _NUMBER.format(number) not in done]

    def commit(self, shard: int, table: Table) -> None:
        """Keep the answers of a shard: after this it is done."""
        replace(self.folder / "results" / _NUMBER.format(shard), _parquet(table))

    def forget_failed(self, problems: Collection[str]) -> int:
        """Drop the results of the shards in which something failed by one of the problems; returns how many."""
        dropped = 0
        for path in self._results():
            found = pq.read_table(path, columns=["problem"]).column("problem")
            if compute.any(compute.is_in(found, pa.array(problems, pa.string()))).as_py():
                path.unlink()
                dropped += 1
        return dropped

    def outcome(self) -> tuple[int, dict[str, int]]:
        """Rows answered, and rows failed by problem, in all results."""
        answered, failed = 0, dict[str, int]()
        for path in self._results():
            for each in pq.read_table(path, columns=["problem"]).column("problem").value_counts().to_pylist():
                if each["values"] is None:
                    answered += each["counts"]
                else:
                    failed[each["values"]] = failed.get(each["values"], 0) + each["counts"]
        return answered, failed

    def _results(self) -> list[Path]:
        return sorted((self.folder / "results").glob("[0-9]*.parquet"))


def listing_file(folder: Path, shard: int) -> Path:
    """Where a ledger keeps the keys of a shard."""
    return folder / "listing" / _NUMBER.format(shard)


def keys_of(folder: Path, shard: int) -> list[str]:
    """The keys of a shard's entries, in order."""
    return pq.read_table(listing_file(folder, shard)).column("key").to_pylist()


def replace(path: Path, content: bytes) -> None:
    """Write a file so that it is whole, on disk, or not there."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def _parquet(table: Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _shards(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    images = 0
    for entry in entries:
        if shard and images + entry.images > size:
            yield shard
            shard, images = [], 0
        shard.append(entry)
        images += entry.images
    if shard:
        yield shard


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunConflict("another process works on this folder") from None
    return file
