from __future__ import annotations

import pyarrow as pa
import pytest

from service.backfill.running import Gathering

# shard, entries, entry, number, rows_of_entry
FIRST = [(7, 2, 0, 0, 0), (7, 2, 0, 1, 2), (7, 2, 1, 0, 1)]
SECOND = [(9, 1, 0, 0, 1)]


def table(*rows: tuple[int, ...]) -> pa.Table:
    names = ("shard", "entries", "entry", "number", "rows_of_entry")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return pa.table(columns | {"what": [f"{row[2]}.{row[3]}" for row in rows]})


def test_a_shard_is_complete_with_its_last_row_in_whatever_order():
    gathering = Gathering()
    assert gathering.add(table(FIRST[2])) == []
    assert gathering.add(table(FIRST[1])) == []
    ((shard, done),) = gathering.add(table(SECOND[0]))
    assert shard == 9
    ((shard, done),) = gathering.add(table(FIRST[0]))
    assert shard == 7
    assert done.to_pydict() == {"what": ["0.0", "0.1", "1.0"]}


def test_one_batch_may_complete_several_shards():
    assert [shard for shard, _ in Gathering().add(table(*FIRST, *SECOND))] == [7, 9]


def test_rows_that_come_twice_are_never_written():
    gathering = Gathering()
    gathering.add(table(FIRST[2]))
    with pytest.raises(RuntimeError, match="shard 7"):
        gathering.add(table(FIRST[2], FIRST[0], FIRST[1]))
