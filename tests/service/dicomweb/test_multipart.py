from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dicomweb.multipart import Limits, MultipartReader, read_zip, write_multipart
from service.errors import BrokenUpload, TooLarge, TooManyImages

TYPE = 'multipart/related; type="application/dicom"; boundary=edge'
SMALL = Limits(files=3, file_bytes=1000, total_bytes=1500)


def read(body: bytes, content_type: str = TYPE, limits: Limits = SMALL, step: int = 7) -> list[bytes]:
    reader = MultipartReader(content_type, limits)
    parts = [part for start in range(0, len(body), step) for part in reader.feed(body[start : start + step])]
    reader.close()
    return parts


def part(content: bytes, headers: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"--edge\r\n" + headers + b"\r\n" + content + b"\r\n"


END = b"--edge--\r\n"


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 400))
def test_what_is_written_is_read_however_it_is_cut(contents, step):
    kind, pieces = write_multipart(contents)
    assert read(b"".join(pieces), kind, Limits(), step) == contents


@given(st.binary(max_size=400), st.integers(1, 64))
def test_anything_else_is_refused_or_read(body, step):
    try:
        read(b"--edge" + body, step=step)
    except (BrokenUpload, TooLarge, TooManyImages):
        return
    assert b"--edge--" in b"--edge" + body


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (part(b"one") + part(b"two") + END, [b"one", b"two"]),
        (b"\r\n" + part(b"one") + END, [b"one"]),
        (b"a preamble\r\n" + part(b"one") + END + b"an epilogue --edge\r\n", [b"one"]),
        (part(b"one", b"") + END, [b"one"]),
        (part(b"\r\n--edg\r\n\r\n--ed") + END, [b"\r\n--edg\r\n\r\n--ed"]),
        (b"--edge \t\r\nA: b\r\nC: d\r\n\r\none\r\n" + END, [b"one"]),
        (END, []),
    ],
)
def test_bodies_as_the_rfc_allows_them(body, parts):
    for step in (1, 3, 1000):
        assert read(body, step=step) == parts


@pytest.mark.parametrize("cut", range(1, len(part(b"one") + END) - 3))
def test_a_body_that_is_cut_off_is_never_taken_for_complete(cut):
    body = part(b"one") + END
    with pytest.raises(BrokenUpload):
        read(body[: -cut - 3])


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/related",
        'multipart/related; type="application/dicom"',
        "multipart/form-data; boundary=edge",
        'multipart/related; type="application/dicom+json"; boundary=edge',
        "multipart/related; boundary=" + "x" * 300,
        TYPE + '; a="' + ";" * 1000,  # 64,000 of them took ten seconds
    ],
)
def test_other_content_types_are_refused(content_type):
    with pytest.raises(BrokenUpload):
        MultipartReader(content_type, SMALL)


def test_the_type_may_be_left_out():
    assert read(part(b"one") + END, "multipart/related; boundary=edge") == [b"one"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (part(b"x") * 4 + END, TooManyImages),
        (part(bytes(900)) * 2 + END, TooLarge),
        (part(bytes(20_000)), TooLarge),
        (bytes(20_000) + part(b"x") + END, BrokenUpload),
        (part(b"x", b"A: " + bytes(16_900) + b"\r\n") + END, BrokenUpload),
        (b"--edge\r\nno end of headers\r\n" + END, BrokenUpload),
        (b"--edgewise\r\n\r\nx\r\n" + END, BrokenUpload),
    ],
)
def test_bodies_beyond_the_limits_or_the_grammar(body, error):
    with pytest.raises(error):
        read(body, step=1000)


def test_what_is_too_large_is_noticed_before_it_has_arrived():
    reader = MultipartReader(TYPE, SMALL)
    list(reader.feed(b"--edge\r\n\r\n"))
    with pytest.raises(TooLarge):
        for _ in range(40):
            list(reader.feed(bytes(1000)))


def zipped(*contents: bytes, names: list[str] | None = None, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for number, content in enumerate(contents):
            named = zipfile.ZipInfo(names[number] if names else f"folder/{number}")  # without the time of day
            archive.writestr(named, content, how)
    return out.getvalue()


def test_a_zip_is_read_whatever_its_names_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = zipped(b"one", b"two", b"", names=["../../up", "/etc/passwd", "folder/"])
    assert list(read_zip(archive, SMALL)) == [b"one", b"two"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_common_compression(how):
    assert list(read_zip(zipped(b"one" * 50, how=how), SMALL)) == [b"one" * 50]


def encrypted() -> bytes:
    archive = bytearray(zipped(b"one"))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.index(signature) + flags] |= 1
    return bytes(archive)


def lying_about_its_size() -> bytes:
    archive = bytearray(zipped(bytes(100_000)))
    struct.pack_into("<I", archive, archive.index(b"PK\x01\x02") + 24, 10)
    return bytes(archive)


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (zipped(b"1", b"2", b"3", b"4"), TooManyImages),
        (zipped(*[b""] * 50), TooManyImages),
        (zipped(bytes(10**6)), TooLarge),
        (zipped(bytes(800), bytes(800)), TooLarge),
        (lying_about_its_size(), (TooLarge, BrokenUpload)),
        (zipped(zipped(b"one")), BrokenUpload),
        (zipped(b"one", how=zipfile.ZIP_LZMA), BrokenUpload),
        (zipped(bytes(100), how=zipfile.ZIP_BZIP2), BrokenUpload),
        (encrypted(), BrokenUpload),
        (zipped(b"one" * 100)[:-30], BrokenUpload),
        (b"", BrokenUpload),
    ],
)
def test_hostile_archives(archive, error):
    with pytest.raises(error):
        list(read_zip(archive, SMALL))


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_archive_is_refused_or_read(place, value):
    archive = bytearray(zipped(b"one" * 30, b"two" * 30))
    archive[place % len(archive)] = value
    try:
        list(read_zip(bytes(archive), SMALL))
    except (BrokenUpload, TooLarge, TooManyImages) as error:
        assert str(error)
