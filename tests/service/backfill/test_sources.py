from __future__ import annotations

import os
from io import BytesIO

import numpy as np
import pytest
from orthanc import INSTALLED, Orthanc
from pydicom import dcmread

from service.backfill import files as folders
from service.backfill.files import Folder
from service.backfill.sources import Query, Store, of_series, open_source
from service.dicomweb import query
from service.dicomweb.archives import Archive
from service.errors import InvalidParameter, RemoteUnavailable, TooLarge, UnknownSource
from tests.dicom_writers import classic_mr, saved


@pytest.fixture
def files(tmp_path) -> dict[bytes, bytes]:
    """By name, below `tmp_path/archive`: names that need escaping, and one that is not UTF-8."""
    made = {b"a.png": b"1", b"one/b #1?.png": b"2", b"one/two/\xfc%.png": b"3", b"one/c.txt": b"4"}
    for name, content in made.items():
        path = os.path.join(os.fsencode(tmp_path / "archive"), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    os.symlink(tmp_path / "archive", tmp_path / "archive" / "one" / "round")
    return made


def test_a_folder_gives_every_file_once_whatever_its_name(tmp_path, files):
    source = open_source(str(tmp_path / "archive"), {})
    keys = [entry.key for entry in source.entries()]
    assert sorted(b"".join(source.contents(key)) for key in keys) == sorted(files.values())
    assert all(key.isascii() and key.startswith("file:///") for key in keys)


def test_names_are_matched(tmp_path, files):
    source = open_source(str(tmp_path / "archive"), {}, "*.txt")
    assert [b"".join(source.contents(entry.key)) for entry in source.entries()] == [b"4"]


def test_a_store_and_a_list_of_its_addresses_give_the_same(tmp_path, files):
    os.remove(
        os.path.join(os.fsencode(tmp_path), b"archive/one/two/\xfc%.png")
    )  # stores have UTF-8 names, and no links
    os.remove(tmp_path / "archive" / "one" / "round")
    source = Store((tmp_path / "archive").as_uri())
    keys = sorted(entry.key for entry in source.entries())
    assert sorted(b"".join(source.contents(key)) for key in keys) == [b"1", b"2", b"4"]
    (tmp_path / "list.txt").write_text("\n".join(keys) + "\n\n")
    listed = open_source(f"@{tmp_path / 'list.txt'}", {})
    assert [entry.key for entry in listed.entries()] == keys
    assert sorted(b"".join(listed.contents(key)) for key in keys) == [b"1", b"2", b"4"]


def test_what_is_gone_or_too_large_is_said(tmp_path, files, monkeypatch):
    for source in (Folder(str(tmp_path)), Store(tmp_path.as_uri())):
        with pytest.raises(RemoteUnavailable):
            next(iter(source.contents(f"file://{tmp_path}/absent")))
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 0)
    for source in (Folder(str(tmp_path)), Store(tmp_path.as_uri())):
        with pytest.raises(TooLarge):
            next(iter(source.contents(f"file://{tmp_path}/archive/a.png")))


def test_the_folders_of_a_folder_are_its_series(tmp_path, files):
    source = of_series(open_source(str(tmp_path / "archive"), {}, "*.png"))
    found = {entry.key[len(f"file://{tmp_path}") :]: entry for entry in source.entries()}
    assert sorted(found) == ["/archive/", "/archive/one/", "/archive/one/two/"]
    assert [list(source.contents(found[name].key)) for name in sorted(found)] == [[b"1"], [b"2"], [b"3"]]
    assert {entry.images for entry in found.values()} == {1}
    with pytest.raises(InvalidParameter):
        of_series(Store(tmp_path.as_uri()))


def test_a_file_uri_is_a_folder(tmp_path, files):
    assert open_source((tmp_path / "archive").as_uri(), {}) == open_source(str(tmp_path / "archive"), {})


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("/nowhere/at/all", InvalidParameter),
        ("@/nowhere", InvalidParameter),
        ("carrier-pigeon://loft", InvalidParameter),
        ("dicomweb:unknown?Modality=MR", UnknownSource),
    ],
)
def test_what_is_no_source_is_refused(source, error):
    with pytest.raises(error):
        open_source(source, {})


@pytest.mark.skipif(not INSTALLED, reason="Orthanc is not installed (Debian: orthanc orthanc-dicomweb)")
def test_a_query_finds_the_series_of_an_archive_page_by_page(tmp_path, monkeypatch):
    orthanc = Orthanc(tmp_path)
    try:
        orthanc.start()
        chance = np.random.default_rng(5)
        sent: dict[str, set[bytes]] = {}
        for name, count in (("first", 3), ("second", 1), ("third", 2)):
            made = classic_mr(list(chance.integers(0, 255, (count, 16, 16), np.uint8)), name)
            for ds in made:
                orthanc.post("/instances", saved(ds))
                sent.setdefault(ds.SeriesInstanceUID, set()).add(ds.PixelData)
        orthanc.post("/instances", saved(_other(classic_mr([np.zeros((16, 16), np.uint8)], "other")[0])))
        monkeypatch.setattr(query, "_PAGE", 2)
        source = open_source("dicomweb:here?Modality=MR", {"here": Archive(url=orthanc.web)})
        assert isinstance(source, Query)
        entries = list(source.entries())
        assert {entry.key.split("/")[-1]: entry.images for entry in entries} == {
            series: len(pixels) for series, pixels in sent.items()
        }
        assert {key.split(":")[0] for key in (entry.key for entry in entries)} == {"dicomweb"}
        for entry in entries:
            found = [pixels for content in source.contents(entry.key) for pixels in _pixels(content)]
            assert set(found) == sent[entry.key.split("/")[-1]]
        nothing = open_source("dicomweb:here?Modality=XA", {"here": Archive(url=orthanc.web)})
        assert list(nothing.entries()) == []
    finally:
        orthanc.close()


def _other(ds):
    ds.Modality = "OT"
    return ds


def _pixels(content: bytes) -> list[bytes]:
    return [dcmread(BytesIO(content)).PixelData]
