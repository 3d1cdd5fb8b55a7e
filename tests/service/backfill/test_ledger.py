from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.backfill.files import Entry
from service.backfill.ledger import Ledger, Listing, keys_of
from service.errors import InvalidParameter, RunConflict

ASKED = {"model": "bright", "method": "gradcam"}


def entries(count: int) -> list[Entry]:
    return [Entry(f"file:///{number}") for number in range(count)]


def ignore(count: int) -> None:
    return None


def rows(*problems: str | None) -> pa.Table:
    return pa.table({"problem": pa.array(problems, pa.string())})


def test_every_entry_is_in_one_shard_in_order(tmp_path):
    ledger = Ledger(tmp_path / "out", ASKED)
    assert ledger.listing is None
    told: list[int] = []
    assert ledger.list_entries(iter(entries(10)), 4, told.append) == Listing(shards=3, entries=10, images=10)
    assert ledger.listing == Listing(3, 10, 10)
    assert [key for shard in range(3) for key in keys_of(ledger.folder, shard)] == [e.key for e in entries(10)]
    assert told == [4, 8, 10]
    ledger.close()


def test_a_shard_is_as_large_as_its_images_say(tmp_path):
    ledger = Ledger(tmp_path, ASKED)
    ledger.list_entries([Entry("a", 3), Entry("b", 2), Entry("c", 99), Entry("d", 1), Entry("e", 3)], 4, ignore)
    assert [keys_of(tmp_path, shard) for shard in range(4)] == [["a"], ["b"], ["c"], ["d", "e"]]
    ledger.close()


def test_a_listing_that_broke_off_is_begun_anew(tmp_path):
    ledger = Ledger(tmp_path, ASKED)

    def breaking():
        yield from entries(5)
        raise PermissionError

    with pytest.raises(PermissionError):
        ledger.list_entries(breaking(), 1, ignore)
    assert ledger.listing is None
    ledger.list_entries(entries(2), 1, ignore)
    assert sorted(path.name for path in (tmp_path / "listing").iterdir()) == ["000000.parquet", "000001.parquet"]
    ledger.close()


def test_a_source_without_anything_is_an_error_and_is_listed_again(tmp_path):
    ledger = Ledger(tmp_path, ASKED)
    with pytest.raises(InvalidParameter, match="nothing"):
        ledger.list_entries([], 4, ignore)
    assert ledger.listing is None
    assert ledger.list_entries(entries(2), 4, ignore).entries == 2
    ledger.close()


def test_what_is_committed_waits_no_more_and_half_a_file_counts_as_none(tmp_path):
    ledger = Ledger(tmp_path, ASKED)
    listing = ledger.list_entries(entries(3), 1, ignore)
    ledger.commit(1, rows(None, "corrupt-image"))
    (tmp_path / "results" / ".000002.parquet.partial").write_bytes(b"PAR1")
    assert ledger.waiting(listing) == [0, 2]
    assert ledger.outcome() == (1, {"corrupt-image": 1})
    assert pq.read_table(tmp_path / "results").num_rows == 2  # readers of the folder see whole files only
    ledger.close()


def test_only_shards_that_failed_so_are_forgotten(tmp_path):
    ledger = Ledger(tmp_path, ASKED)
    listing = ledger.list_entries(entries(3), 1, ignore)
    for shard, problem in enumerate((None, "remote-unavailable", "corrupt-image")):
        ledger.commit(shard, rows(problem, None))
    assert ledger.forget_failed(("remote-unavailable",)) == 1
    assert ledger.waiting(listing) == [1]
    ledger.close()


def test_another_question_or_a_second_process_is_refused(tmp_path):
    ledger = Ledger(tmp_path, ASKED)
    with pytest.raises(RunConflict, match="another process"):
        Ledger(tmp_path, ASKED)
    ledger.close()
    with pytest.raises(RunConflict, match="what differs: method"):
        Ledger(tmp_path, {**ASKED, "method": "shap"})
    Ledger(tmp_path, ASKED).close()


def test_the_folder_is_for_its_owner_alone(tmp_path):
    Ledger(tmp_path / "out", ASKED).close()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
