"""Files that end early, or whose sequences and fragments are not delimited as the standard says."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, generate_frames
from pydicom.sequence import Sequence

from service import errors
from service.images.mending import mend
from service.images.parsing import condition_of, parse
from service.images.patience import Patience
from service.images.reading import read_frames
from service.series.reading import read_series
from tests.dicom_modules import item, put_pixels
from tests.dicom_writers import classic_mr, encoded, enhanced_mr, saved

IMAGE = (np.add.outer(np.arange(40), np.arange(48)) * 20).astype(np.uint16)
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
COMPRESSED = (uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless, uid.JPEGLosslessSV1)


def slice_in(syntax: uid.UID = uid.ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    (ds,) = classic_mr([IMAGE], window=(500, 1000), **elements)
    return encoded(ds, syntax)


def with_sequences(syntax: uid.UID = uid.ExplicitVRLittleEndian) -> Dataset:
    """All sequences and items of undefined length: two items; the first holds a sequence with one."""
    codes = [item(CodeValue="T-A0100", CodeMeaning="Brain")]
    first = item(ReferencedSOPClassUID="1.2.3", PurposeOfReferenceCodeSequence=codes)
    ds = slice_in(syntax, ReferencedImageSequence=Sequence([first, item(ReferencedSOPClassUID="1.2.4")]))
    ds.walk(undefined)
    return ds


def undefined(ds: Dataset, element: DataElement) -> None:
    if element.VR == "SQ":
        element.is_undefined_length = True
        for one in element.value:
            one.is_undefined_length_sequence_item = True


def pixels(content: bytes) -> Any:
    (frame,) = read_frames(content, "x")
    return frame.pixels


def notes(content: bytes) -> tuple[str, ...]:
    return read_frames(content, "x")[0].warnings


# Compressed pixel data


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("cut", [8, 4, 1, 6])
def test_pixels_without_their_last_delimiter_are_all_there(syntax: uid.UID, cut: int) -> None:
    content = saved(slice_in(syntax))
    assert content.endswith(SEQUENCE_END)
    assert not notes(content)
    assert np.array_equal(pixels(content[:-cut]), pixels(content))
    if cut > 4:
        assert "not well formed" in notes(content[:-cut])[0]


def test_a_padding_byte_may_be_missing_with_the_delimiter() -> None:
    ds = slice_in(uid.JPEGLSLossless)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    end = frame.rindex(b"\xff\xd9") + 2
    ds.PixelData = encapsulate([frame[:end] + b"\0" * (2 - end % 2)])
    content = saved(ds)
    assert np.array_equal(pixels(content[:-9]), pixels(content))


@pytest.mark.parametrize(
    "junk", [b"\xff" * 64, b"\0" * 64, b"junk" * 20, b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0", b"\xff" * 7]
)
@pytest.mark.parametrize("delimited", [True, False])
@pytest.mark.parametrize("syntax", COMPRESSED[:3], ids=lambda syntax: syntax.keyword)
def test_what_follows_the_pixels_does_not_matter(syntax: uid.UID, junk: bytes, delimited: bool) -> None:
    content = saved(slice_in(syntax))
    kept = content if delimited else content[:-8]
    assert np.array_equal(pixels(kept + junk), pixels(content))


def test_what_follows_native_pixels_does_not_matter() -> None:
    content = saved(slice_in())
    for junk in (b"\xff" * 64, b"\0" * 9, SEQUENCE_END, ITEM_END + b"\x01\x02\x03"):
        assert np.array_equal(pixels(content + junk), pixels(content))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("left", [0.02, 0.5, 0.95])
def test_a_frame_that_the_end_of_the_file_cuts_is_said_to_be_cut(syntax: uid.UID, left: float) -> None:
    content = saved(slice_in(syntax))
    start = content.rindex(b"\xe0\x7f\x10\x00") + 12
    cut = content[: start + int(left * (len(content) - 8 - start))]
    with pytest.raises(errors.CorruptImage, match="ends early: within its pixel data"):
        read_frames(cut, "x")


def test_native_pixels_that_the_end_of_the_file_cuts_are_said_to_be_cut() -> None:
    content = saved(slice_in())
    for cut in (2, 1000, IMAGE.nbytes - 2, IMAGE.nbytes):
        with pytest.raises(errors.CorruptImage, match="ends early: within its pixel data"):
            read_frames(content[:-cut], "x")


def test_native_pixels_need_no_length() -> None:
    content = saved(slice_in())
    assert content[-IMAGE.nbytes - 4 : -IMAGE.nbytes] == struct.pack("<I", IMAGE.nbytes)
    endless = content[: -IMAGE.nbytes - 4] + b"\xff" * 4 + content[-IMAGE.nbytes :]
    for end in (b"", SEQUENCE_END):
        assert np.array_equal(pixels(endless + end), pixels(content))


def test_an_item_delimiter_may_end_the_fragments() -> None:
    content = saved(slice_in(uid.JPEGLSLossless))
    assert np.array_equal(pixels(content[:-8] + ITEM_END), pixels(content))


def test_whole_frames_of_a_cut_file_are_handed_on() -> None:
    frames = [IMAGE, IMAGE + 1, IMAGE + 2]
    content = saved(encoded(enhanced_mr(frames), uid.JPEGLSLossless))
    ds = parse(content[:-300])
    whole = list(generate_fragments(parse(content).PixelData))
    assert condition_of(ds).ends_early
    assert list(generate_fragments(ds.PixelData)) == whole[:-1]
    with pytest.raises(errors.CorruptImage, match="ends early: within its pixel data"):
        read_frames(content[: content.index(whole[1]) + 20], "x")


# Headers


def test_a_cut_header_is_not_taken_for_an_object_without_pixels() -> None:
    content = saved(with_sequences())
    places = [content.index(mark) for mark in (b"T-A0100", b"Brain", b"1.2.4", b"Subject^", b"\x28\x00\x10\x00US")]
    for at in places:
        for more in (1, 3):
            with pytest.raises(errors.CorruptImage, match="ends early: there are no pixel data up to there"):
                read_frames(content[: at + more], "x")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_file_cut_anywhere_gives_its_picture_or_a_true_reason(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from([uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, *COMPRESSED]))
    content = saved(with_sequences(syntax))
    cut = content[: data.draw(st.integers(132, len(content) - 1))]
    try:
        found = pixels(cut)
    except errors.NoPixelData as error:  # cut between two elements before Rows: no byte of it tells
        assert "ends early" in error.detail or "Rows" not in parse(cut)
    except errors.CorruptImage:
        pass
    else:
        assert np.array_equal(found, pixels(content))


def test_a_file_that_ends_early_stays_with_its_series() -> None:
    series = classic_mr([IMAGE, IMAGE + 1], window=(500, 1000))
    whole = saved(encoded(series[0], uid.JPEGLSLossless))
    other = saved(encoded(series[1], uid.JPEGLSLossless))
    for cut, slices in ((8, 2), (20, 1)):
        (found,) = read_series([whole, other[:-cut]])
        assert found.study == series[0].StudyInstanceUID
        assert len(found.slices) == slices
    assert found.left_out[0].sop_instance == series[1].SOPInstanceUID
    assert "ends early" in found.left_out[0].reason


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", ["item", "items", "sequence", "both", "twice", "top", "last item"])
def test_misplaced_delimiters_cost_no_pixels(syntax: uid.UID, kind: str) -> None:
    content = saved(with_sequences(syntax))
    item_end, end = ITEM_END, SEQUENCE_END
    if syntax == uid.ExplicitVRBigEndian:
        item_end, end = b"\xff\xfe\xe0\x0d\0\0\0\0", b"\xff\xfe\xe0\xdd\0\0\0\0"
    assert content.count(end) == 2
    last = item_end + end
    broken = {
        "item": content.replace(last, end, 1),
        "items": content.replace(item_end, b""),
        "sequence": content.replace(last, item_end, 1),
        "both": content.replace(last, b"", 1),
        "twice": content.replace(item_end, item_end * 2),
        "top": content.replace(end, end + item_end),
        "last item": end.join(content.rsplit(last, 1)),
    }[kind]
    assert broken != content
    assert np.array_equal(pixels(broken), pixels(content))
    kept = parse(broken)
    assert kept.PatientID == parse(content).PatientID
    assert kept.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.3"


def test_no_single_delimiter_is_needed() -> None:
    ds = enhanced_mr([IMAGE, IMAGE // 2], window=(300, 600))
    ds.walk(undefined)
    content = saved(encoded(ds, uid.JPEGLSLossless))
    expected = [frame.pixels for frame in read_frames(content, "x")]
    places = [found for mark in (ITEM_END, SEQUENCE_END) for found in re.finditer(re.escape(mark), content)]
    assert len(places) > 40
    for place in places:
        for instead in (b"", place[0] * 2):
            broken = content[: place.start()] + instead + content[place.end() :]
            found = [frame.pixels for frame in read_frames(broken, "x")]
            assert np.array_equal(found, expected)
            assert parse(broken).SOPInstanceUID == ds.SOPInstanceUID


def test_items_of_the_wrong_length_cost_no_pixels() -> None:
    ds = with_sequences()
    for one in ds.ReferencedImageSequence:
        one.is_undefined_length_sequence_item = False
    content = saved(ds)
    at = content.rindex(b"\xfe\xff\x00\xe0", 0, content.index(b"1.2.4")) + 4
    (length,) = struct.unpack_from("<I", content, at)
    for wrong in (length + 8, length + 100, 10**6):
        broken = content[:at] + struct.pack("<I", wrong) + content[at + 4 :]
        assert np.array_equal(pixels(broken), pixels(content))
        assert parse(broken).ReferencedImageSequence[1].ReferencedSOPClassUID == "1.2.4"


def test_a_cut_deflated_file_ends_early() -> None:
    (ds,) = classic_mr([np.random.default_rng(0).integers(0, 999, (40, 48), np.uint16)])
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    content = saved(ds)
    assert condition_of(parse(content)).notes == ()
    cut = parse(content[:-1000])
    assert condition_of(cut).ends_early
    assert cut.StudyInstanceUID == ds.StudyInstanceUID
    with pytest.raises(errors.CorruptImage):
        read_frames(content[:-1000], "x")


def test_what_is_no_image_holds_no_pixel_data() -> None:
    report = Dataset()
    report.file_meta = slice_in().file_meta
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = uid.BasicTextSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID
    report.ReferencedImageSequence = with_sequences().ReferencedImageSequence
    with pytest.raises(errors.NoPixelData, match="holds no pixel data"):
        read_frames(saved(report), "x")
    put_pixels(report, IMAGE)
    report.PixelData = b""
    with pytest.raises(errors.NoPixelData, match="has no pixel data"):
        read_frames(saved(report), "x")
    del report.PixelData
    with pytest.raises(errors.NoPixelData, match="has no pixel data"):
        read_frames(saved(report), "x")


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=400), little=st.booleans())
def test_any_bytes_can_be_mended(data: bytes, little: bool) -> None:
    found = mend(data, 0, little=little, patience=Patience()).content
    assert len(found) <= 2 * len(data) + 16
    if b"\xfe\xff" not in found and b"\xff\xfe" not in found and b"\xff" * 4 not in found:
        assert data.startswith(found)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, *COMPRESSED])
def test_a_sound_file_needs_no_mending(syntax: uid.UID) -> None:
    content = saved(with_sequences(syntax))
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    found = mend(content, start, little=True, patience=Patience())
    assert found.content == content
    assert (found.ends_early, found.lost) == (False, False)
