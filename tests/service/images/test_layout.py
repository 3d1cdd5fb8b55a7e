"""How samples are stored: headers that say it in an unusual way, or leave out what can mean one thing only."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from service import errors
from service.images import decoder_process
from service.images.layout import read_layout
from service.images.reading import read_frames
from service.images.syntaxes import DEFLATED_FRAMES
from tests.dicom_writers import encoded
from tests.service.images.test_reading import BOUNDED, RAMP, instance, read_one, saved

ROWS, COLUMNS = RAMP.shape
GREY = (RAMP % 251).astype(np.uint8)
SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    DEFLATED_FRAMES,
)


STAND_INS = {20: uid.ExplicitVRLittleEndian, 22: uid.JPEGBaseline8Bit, 24: uid.HEVCMP51}


@pytest.fixture(autouse=True, scope="module")
def no_child_is_left():
    yield
    decoder_process.end_all()


def deflate(frame: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(frame) + deflater.flush()


def written(cells: NDArray[Any], syntax: uid.UID, **elements: Any) -> Dataset:
    """An instance with these cells of 16 bits, whatever the header says of them afterwards."""
    ds = instance(cells)
    ds = newer(ds, syntax, deflate(cells.tobytes())) if syntax == DEFLATED_FRAMES else encoded(ds, syntax)
    return changed(ds, **elements)


def newer(ds: Dataset, syntax: str, *frames: bytes) -> Dataset:
    """With compressed frames in a transfer syntax that pydicom need not know."""
    ds.file_meta.TransferSyntaxUID = STAND_INS[len(syntax) + len(syntax) % 2]
    ds.PixelData = encapsulate(list(frames))
    ds.stands_for = syntax  # no element: `content_of` puts it into the file
    return ds


def content_of(ds: Dataset) -> bytes:
    """The file."""
    content, syntax = saved(ds), getattr(ds, "stands_for", None)
    if syntax is None:
        return content
    old = ds.file_meta.TransferSyntaxUID.encode()
    assert content.count(old) == 1
    return content.replace(
        old.ljust(len(old) + len(old) % 2, b"\0"), syntax.encode().ljust(len(syntax) + len(syntax) % 2, b"\0")
    )


def read(ds: Dataset) -> Any:
    """Its only frame."""
    (frame,) = read_frames(content_of(ds), "x.dcm")
    return frame


def changed(ds: Dataset, **elements: Any) -> Dataset:
    """With elements set, or deleted where None."""
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def in_cells(values: NDArray[Any], stored: int, high: int) -> NDArray[np.uint16]:
    """Values at their place in cells of 16 bits, with something in every unused bit (PS3.5 8.1.1)."""
    low = high - stored + 1
    used = ((1 << stored) - 1) << low
    noise = np.random.default_rng(0).integers(0, 1 << 16, values.shape)
    return ((values.astype(np.int64) << low & used) | (noise & ~used & 0xFFFF)).astype(np.uint16)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword or "deflated frames")
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 13), (16, 15), (1, 0)])
@pytest.mark.parametrize("signed", [0, 1])
def test_samples_are_taken_out_of_their_cells(syntax: uid.UID, stored: int, high: int, signed: int) -> None:
    values = np.arange(RAMP.size).reshape(RAMP.shape) * 37 % (1 << stored)
    expected = (
        np.where(values >= 1 << (stored - 1), values - (1 << stored), values) if signed and stored > 1 else values
    )
    ds = written(in_cells(values, stored, high), syntax, BitsStored=stored, HighBit=high, PixelRepresentation=signed)
    np.testing.assert_array_equal(read(ds).pixels, expected)


@pytest.mark.parametrize("high", [3, 16, 200])
def test_a_high_bit_that_cannot_be_is_the_usual_one(high: int) -> None:
    ds = changed(instance(in_cells(RAMP, 12, 11), BitsStored=12), HighBit=high)
    np.testing.assert_array_equal(read_one(ds).pixels, RAMP)


def packed(values: NDArray[Any], bits: int) -> bytes:
    """Cells of so many bits, one behind the other, the lowest bit first (PS3.5 annex D); literally."""
    total = sum(int(value) << bits * index for index, value in enumerate(values.ravel()))
    data = total.to_bytes(-(-values.size * bits // 8), "little")
    return data + bytes(len(data) % 2)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("bits", "stored", "signed"), [(12, 12, 0), (12, 12, 1), (12, 10, 0), (10, 10, 0), (4, 4, 1)])
def test_cells_of_other_than_whole_bytes(bits: int, stored: int, signed: int, big: bool) -> None:
    values = np.stack([RAMP, RAMP[::-1]])[:, :39, :47] % (1 << stored)  # frames that end within a byte
    expected = np.where(values >= 1 << (stored - 1), values.astype(int) - (1 << stored), values) if signed else values
    ds = instance(values, frames=2)
    data = packed(values | (1 << stored if stored < bits else 0), bits)
    if big:
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    changed(ds, BitsAllocated=bits, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed, PixelData=data)
    for frame, one in zip(read_frames(saved(ds), "x"), expected, strict=True):
        np.testing.assert_array_equal(frame.pixels, one)


@pytest.mark.parametrize("frames", [1.9, 2.7])
def test_fewer_frames_than_announced_where_less_is_stored_of_each(frames: float) -> None:
    """What is there would hold one frame less with what the savings leave out."""
    stack = np.stack([RAMP, RAMP + 1, RAMP + 2])
    data = packed(stack, 12)
    ds = changed(instance(stack, frames=3), BitsAllocated=12, BitsStored=12, HighBit=11)
    ds.PixelData = data[: int(len(data) * frames / 6) * 2]
    found = read_frames(saved(ds), "x")
    assert len(found) == int(frames)
    for frame, expected in zip(found, stack, strict=False):
        np.testing.assert_array_equal(frame.pixels, expected)


def test_cells_that_are_announced_without_gaps_and_have_them() -> None:
    ds = changed(instance(RAMP), BitsAllocated=12, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_one(ds).pixels, RAMP)


def test_single_bits() -> None:
    values = np.stack([RAMP, RAMP[::-1]])[:, :39, :47] // 5 % 2
    ds = changed(instance(values, frames=2), BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed(values, 1))
    for frame, one in zip(read_frames(saved(ds), "x"), values, strict=True):
        np.testing.assert_array_equal(frame.pixels, one)


@pytest.mark.parametrize("bits", [0, 20, 24, 48, 128])
def test_bits_that_are_not_read_are_named(bits: int) -> None:
    ds = changed(instance(RAMP), BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1 if bits else 0)
    with pytest.raises(errors.UnreadableImage, match=r"Bits Allocated \(0028,0100\)"):
        read_one(ds)


def test_more_bits_stored_than_allocated() -> None:
    with pytest.raises(errors.CorruptImage, match=r"Bits Stored \(0028,0101\) .* Bits Allocated"):
        read_one(changed(instance(GREY), BitsStored=12))


PHOTOMETRICS = ["monochrome2", " MONOCHROME2 ", "Monochrome 2", "MONOCHROME2\0\0x"]


@pytest.mark.parametrize("name", PHOTOMETRICS[:3])
def test_photometric_interpretation_in_other_letters(name: str) -> None:
    frame = read_one(instance(GREY, PhotometricInterpretation=name))
    np.testing.assert_array_equal(frame.pixels, GREY)
    assert frame.warnings == ()
    dark = read_one(instance(GREY, PhotometricInterpretation=name.replace("2", "1")))
    np.testing.assert_array_equal(dark.pixels, 255 - GREY)


@pytest.mark.parametrize("name", ["rgb", "ybr_full", "YBR FULL", "palette color", "PALETTE_COLOR"])
def test_colour_in_other_letters(name: str) -> None:
    rgb = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    usual = name.upper().replace("YBR FULL", "YBR_FULL").replace("PALETTE_", "PALETTE ")
    ds = instance(GREY if "PALETTE" in usual else rgb, usual)
    for colour, step in (("Red", 1), ("Green", 2), ("Blue", 3)):
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [252, 0, 8])
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(i * step % 256 for i in range(252)))
    expected = read_one(ds)
    found = read_one(changed(ds, PhotometricInterpretation=name))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.colour == expected.colour > 0


@pytest.mark.parametrize(("photometric", "signed"), [("PALETTE COLOR", True), ("MONOCHROME1", True), ("RGB", False)])
def test_a_sign_has_no_meaning_in_colour(photometric: str, signed: bool) -> None:
    stored = np.dstack([GREY] * 3) if photometric == "RGB" else GREY
    ds = changed(instance(stored, photometric), PixelRepresentation=1)
    assert read_layout(ds, uid.ExplicitVRLittleEndian).signed == signed


def test_photometric_interpretation_may_be_missing_for_one_sample() -> None:
    frame = read_one(changed(instance(GREY), PhotometricInterpretation=None))
    np.testing.assert_array_equal(frame.pixels, GREY)
    assert any("Photometric Interpretation" in warning for warning in frame.warnings)
    with pytest.raises(errors.CorruptImage, match=r"Photometric Interpretation \(0028,0004\) is missing"):
        read_one(changed(instance(np.dstack([GREY] * 3), "RGB"), PhotometricInterpretation=None))


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize(
    ("keyword", "told"),
    [
        ("PixelRepresentation", True),
        ("BitsStored", True),
        ("BitsAllocated", True),
        ("HighBit", False),
        ("SamplesPerPixel", False),
        ("NumberOfFrames", False),
    ],
)
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLSLossless, uid.RLELossless])
def test_what_is_missing_means_the_usual(keyword: str, told: bool, value: str | None, syntax: uid.UID) -> None:
    ds = encoded(instance(RAMP * 7, NumberOfFrames=1), syntax)
    if value is None:
        del ds[keyword]
    else:
        ds[keyword].value = None
    frame = read_one(ds)
    np.testing.assert_array_equal(frame.pixels, RAMP * 7)
    name = "".join(f" {letter}" if letter.isupper() else letter for letter in keyword).strip()
    assert any(name in warning for warning in frame.warnings) == told


def test_compressed_frames_tell_what_the_header_does_not() -> None:
    ds = encoded(instance(RAMP * 7), uid.JPEGLSLossless)
    del ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    np.testing.assert_array_equal(read_one(ds).pixels, RAMP * 7)


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]
)
def test_colour_may_lack_its_planar_configuration(syntax: uid.UID) -> None:
    rgb = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    ds = encoded(instance(rgb, "RGB"), syntax)
    expected = read_one(instance(rgb, "RGB"))
    found = read_one(changed(ds, PlanarConfiguration=None))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.colour == expected.colour
    assert any("Planar Configuration" in one for one in found.warnings) == (not syntax.is_encapsulated)


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_what_must_be_there_is_named(keyword: str) -> None:
    with pytest.raises(errors.CorruptImage, match=rf"{keyword} \(0028,001[01]\) is missing"):
        read_one(changed(instance(RAMP), **{keyword: None}))


@pytest.mark.parametrize("keyword", ["PixelRepresentation", "PlanarConfiguration"])
def test_a_choice_that_there_is_not_is_named(keyword: str) -> None:
    with pytest.raises(errors.CorruptImage, match=r"\(0028,0(103|006)\) .* neither 0 nor 1"):
        read_one(changed(instance(np.dstack([GREY] * 3), "RGB"), **{keyword: 7}))


def test_numbers_with_something_behind_them() -> None:
    ds = instance(np.stack([GREY, GREY]), frames=2)
    content = saved(ds).replace(b"\x28\0\x08\0IS\x02\x002 ", b"\x28\0\x08\0IS\x04\x002\0ab")
    assert len(read_frames(content, "x")) == 2
    with pytest.raises(errors.CorruptImage, match="Number of Frames") as caught:
        read_frames(content.replace(b"2\0ab", b"XXXX"), "x")
    assert "XXXX" not in str(caught.value)


def ybr_422(ybr: NDArray[np.uint8]) -> bytes:
    """PS3.3 C.7.6.3.1.2: Y1 Y2 CB CR of two pixels."""
    pairs = ybr.reshape(-1, 2, 3)
    return np.column_stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]]).tobytes()


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("planar", [0, 1])
def test_chroma_that_is_announced_at_half_and_stored_in_full(frames: int, planar: int) -> None:
    ybr = np.dstack([GREY, np.full_like(GREY, 90), np.full_like(GREY, 150)])
    stack = np.stack([ybr] * frames)
    expected = read_one(instance(ybr, "YBR_FULL"))
    half = instance(stack if frames > 1 else ybr, "YBR_FULL_422", frames, PlanarConfiguration=planar)
    half.PixelData = ybr_422(ybr) * frames
    full = instance(stack if frames > 1 else ybr, "YBR_FULL_422", frames, PlanarConfiguration=planar)
    full.PixelData = (stack.transpose(0, 3, 1, 2) if planar else stack).tobytes()
    for ds in (half, full):
        found = read_frames(saved(ds), "x")
        assert len(found) == frames
        for frame in found:
            np.testing.assert_array_equal(frame.pixels, expected.pixels)
            assert frame.colour == expected.colour > 0.1


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]
)
def test_colour_of_other_depths(bits: int, photometric: str, syntax: uid.UID) -> None:
    eight = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    expected = read_one(instance(eight, photometric))
    ds = encoded(instance(eight.astype(np.uint16) << (bits - 8), "RGB", BitsStored=bits), syntax)
    found = read_one(changed(ds, PhotometricInterpretation=photometric))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.colour == expected.colour


def test_fewer_frames_than_announced() -> None:
    stack = np.stack([RAMP, RAMP + 1, RAMP + 2])
    for count in (1, 2):
        ds = instance(stack, frames=3)
        ds.PixelData = ds.PixelData[: count * RAMP.nbytes + 100]
        found = read_frames(saved(ds), "x")
        assert [frame.name for frame in found] == ["x#1", "x#2"][:count] if count > 1 else ["x"]
        for frame, expected in zip(found, stack, strict=False):
            np.testing.assert_array_equal(frame.pixels, expected)
            assert any("fewer frames" in warning for warning in frame.warnings)
    ds = changed(instance(stack, frames=3), PixelData=RAMP.tobytes()[:-2])
    with pytest.raises(errors.CorruptImage, match="truncated: they end before the first frame"):
        read_one(ds)


@pytest.mark.parametrize("missing", [0, 1])
def test_deflated_frames(missing: int) -> None:
    stack = np.stack([RAMP, RAMP + 1])
    frames = [deflate(frame.tobytes()[: RAMP.nbytes - missing]) for frame in stack]
    ds = newer(instance(stack, frames=2), DEFLATED_FRAMES, *frames)
    if missing:
        with pytest.raises(errors.CorruptImage, match="truncated"):
            read(ds)
        return
    for frame, expected in zip(read_frames(content_of(ds), "x"), stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)


def test_a_deflated_frame_inflates_to_its_size_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    decompressobj = zlib.decompressobj

    class Inflater:
        def decompress(self, data: bytes, most: int) -> bytes:
            asked.append(most)
            return decompressobj(-zlib.MAX_WBITS).decompress(data, most)

    monkeypatch.setattr("service.images.decoding.zlib.decompressobj", lambda *_: Inflater())
    ds = newer(instance(GREY), DEFLATED_FRAMES, deflate(GREY.tobytes() + bytes(2**24)))
    np.testing.assert_array_equal(read(ds).pixels, GREY)
    assert asked == [GREY.size]


def test_frames_in_fragments_without_compression() -> None:
    ds = newer(instance(GREY), "1.2.840.10008.1.2.1.98", GREY.tobytes())
    np.testing.assert_array_equal(read(ds).pixels, GREY)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.52", "retired .*Extended .Process 3 and 5"),
        ("1.2.840.10008.1.2.4.58", "retired .*Lossless, Non-Hierarchical .Process 15"),
        ("1.2.840.10008.1.2.4.66", "retired .*Lossless, Hierarchical .Process 29"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.107", "HEVC"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.7.1", "SMPTE"),
    ],
)
def test_what_is_not_read_is_named(syntax: str, name: str) -> None:
    with pytest.raises(errors.UnsupportedTransferSyntax, match=rf"{name}.* is not supported"):
        read(newer(instance(GREY), syntax, b"sound"))


NUMBERS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "Rows", "Columns")


@BOUNDED
@given(
    st.fixed_dictionaries(
        {},
        optional={
            keyword: st.sampled_from([None, 0, 1, 2, 3, 7, 8, 11, 12, 15, 16, 17, 24, 32, 48, 64, 65535])
            for keyword in NUMBERS
        }
        | {"PhotometricInterpretation": st.sampled_from(["", *PHOTOMETRICS, "RGB", "YBR_FULL_422", "PALETTE COLOR"])},
    ),
    st.sampled_from([uid.ExplicitVRLittleEndian, uid.RLELossless, DEFLATED_FRAMES]),
)
def test_any_layout_gives_frames_or_our_errors(elements: dict[str, Any], syntax: uid.UID) -> None:
    ds = written(RAMP, syntax)
    ds.PlanarConfiguration = 0
    try:
        frames = read_frames(content_of(changed(ds, **elements)), "x")
    except errors.UnreadableImage:
        return
    assert frames[0].pixels.shape == (ds.Rows, ds.Columns)
