from __future__ import annotations

import logging
import math
import pickle
import warnings
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_voi

from loadtests.payloads import uploads
from service import errors
from service.images import patience, pixels, reading
from service.images.reading import read_frames, sniff
from service.preprocessing import prepare
from service.types import PreprocessingSpec

RAMP = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48)  # JPEG 2000 encoders want at least 32 x 32
FRAME = PreprocessingSpec(field_of_view="frame", size=32)
BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def instance(stored: NDArray[Any], photometric: str = "MONOCHROME2", frames: int = 1, **elements: Any) -> Dataset:
    """A secondary capture instance around stored values `[H, W]`, `[H, W, 3]`, or `[N, ...]` with frames > 1."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3.4"
    ds.PatientName, ds.Modality = "Secret^Name", "MR"
    colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = stored.shape[1:] if frames > 1 else stored.shape
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3 if colour else 1), photometric
    if colour:
        ds.PlanarConfiguration = 0
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.BitsAllocated = ds.BitsStored = 8 * stored.dtype.itemsize
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.HighBit = ds.BitsStored - 1
    data = stored.tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    return ds


def saved(ds: Dataset) -> bytes:
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def read_one(ds: Dataset) -> Any:
    (frame,) = read_frames(saved(ds), "x.dcm")
    return frame


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"{name} no longer ships with pydicom"
    return Path(path).read_bytes()


# PNG and JPEG


def test_grey_png_comes_back_exactly() -> None:
    grey = (RAMP % 256).astype(np.uint8)
    (frame,) = read_frames(encode(Image.fromarray(grey)), "a.png")
    assert frame.name == "a.png"
    assert frame.pixels.dtype == np.uint8
    assert np.array_equal(frame.pixels, grey)
    assert (frame.colour, frame.modality, frame.warnings) == (0.0, None, ())


@pytest.mark.parametrize("shape", [(1, 1), (40, 48), (40, 48, 3)])
def test_an_image_without_contrast_is_said_to_show_nothing(shape: tuple[int, ...]) -> None:
    flat = np.full(shape, 7, np.uint8)
    found = [*read_frames(encode(Image.fromarray(flat)), "a.png")]
    found += read_frames(saved(instance(flat, "RGB" if len(shape) == 3 else "MONOCHROME2")), "a.dcm")
    assert [[text for text in one.warnings if "nothing to see" in text] for one in found] == [
        [found[0].warnings[-1]]
    ] * 2
    beside = read_one(instance(RAMP, WindowCenter="-900", WindowWidth="900"))  # a window does not blind the model
    assert not any("nothing to see" in text for text in beside.warnings)


def test_16_bit_grey_png_keeps_its_values() -> None:
    (frame,) = read_frames(encode(Image.fromarray(RAMP * 30)), "a.png")
    assert frame.pixels.dtype == np.float32
    assert np.array_equal(frame.pixels, RAMP * 30)


def test_bilevel_png_spans_the_full_range() -> None:
    (frame,) = read_frames(encode(Image.fromarray(RAMP % 2 == 1)), "a.png")
    assert np.array_equal(np.unique(frame.pixels), [0, 255])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_grey_content_in_a_colour_mode_has_no_colour(mode: str) -> None:
    grey = (RAMP % 256).astype(np.uint8)
    (frame,) = read_frames(encode(Image.fromarray(grey).convert(mode)), "a.png")
    assert frame.colour < 0.01
    assert np.abs(frame.pixels.astype(int) - grey).max() <= 3


def test_colour_is_the_mean_spread_of_the_channels() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2] = (255, 0, 0)
    (frame,) = read_frames(encode(Image.fromarray(rgb)), "a.png")
    assert frame.colour == pytest.approx(0.5)
    assert frame.pixels[0, 0] == 76  # BT.601: 0.299 * 255


def test_transparent_pixels_are_black() -> None:
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[0, 0, 3] = 0
    (frame,) = read_frames(encode(Image.fromarray(rgba)), "a.png")
    assert frame.pixels[0, 0] == 0
    assert frame.pixels[1, 1] == 255


@pytest.mark.parametrize(("mode", "tolerance"), [("L", 3), ("RGB", 3), ("CMYK", 6)])
def test_jpeg_modes(mode: str, tolerance: int) -> None:
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    (frame,) = read_frames(encode(Image.fromarray(smooth).convert(mode), "JPEG", quality=98), "a.jpg")
    assert np.abs(frame.pixels.astype(int) - smooth).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = np.zeros((32, 48), np.uint8)
    upright[:8, :8], upright[:8, 40:] = 255, 128
    # how a camera stores the scene, EXIF 2.32 table for tag 0x0112
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(read_frames(content, "a.png")[0].pixels, upright)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_raster_is_corrupt(form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    content = encode(Image.fromarray(noise), form)
    with pytest.raises(errors.CorruptImage):
        read_frames(content[: int(share * len(content))], "a")


def test_decompression_bomb_is_refused_without_inflating_it() -> None:
    small = bytearray(encode(Image.new("L", (8, 8))))
    small[16:24] = (60000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    with pytest.raises(errors.TooManyPixels):
        read_frames(bytes(small), "a.png")


def test_sniff() -> None:
    assert sniff(encode(Image.new("L", (8, 8)))) == "png"
    assert sniff(encode(Image.new("L", (8, 8)), "JPEG")) == "jpeg"
    assert sniff(saved(instance(RAMP))) == "dicom"
    assert sniff(saved(instance(RAMP))[132:]) == "dicom"
    assert sniff(b"GIF89a" + bytes(300)) is None
    assert sniff(b"") is None


def test_other_formats_are_unsupported() -> None:
    with pytest.raises(errors.UnsupportedFormat):
        read_frames(encode(Image.new("L", (8, 8)), "GIF"), "a.gif")


# DICOM: values


def test_plain_8_bit_instance_equals_its_pixels() -> None:
    grey = (RAMP % 256).astype(np.uint8)
    frame = read_one(instance(grey))
    assert frame.name == "x.dcm"
    assert frame.modality == "MR"
    assert frame.pixels.dtype == np.uint8
    assert np.array_equal(frame.pixels, grey)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int8])
def test_without_window_the_full_range_in_modality_units_is_kept(dtype: type) -> None:
    stored = (RAMP.astype(np.int32) % 200 - (0 if dtype == np.uint16 else 100)).astype(dtype)
    frame = read_one(instance(stored, RescaleSlope="2", RescaleIntercept="-1024"))
    assert frame.pixels.dtype == np.float32
    assert np.array_equal(frame.pixels, stored.astype(np.float32) * 2 - 1024)


def reference(value: float, centre: float, width: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, literally, with output 0..255."""
    if function == "SIGMOID":
        power = -4 * (value - centre) / width
        return 255 / (1 + math.exp(power)) if power < 700 else 0.0  # its limit: the power would overflow
    c, w = (centre - 0.5, width - 1) if function == "LINEAR" else (centre, width)
    if value <= c - w / 2:
        return 0.0
    if value > c + w / 2:
        return 255.0
    return ((value - c) / w + 0.5) * 255


@BOUNDED
@given(
    values=st.lists(st.integers(-2000, 4000), min_size=4, max_size=4),
    centre=st.integers(-1500, 3500),
    width=st.integers(1, 5000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
@example(values=[0, 178, 278, 2000], centre=78, width=1, function="SIGMOID")  # -100: exp(712) overflows
def test_windowing_is_the_formula_of_the_standard(values: list[int], centre: int, width: int, function: str) -> None:
    stored = np.array(values, np.int16).reshape(2, 2)
    elements = {"WindowCenter": str(centre), "WindowWidth": str(width), "VOILUTFunction": function}
    with np.errstate(over="raise"):
        shown = read_one(instance(stored, RescaleSlope="1", RescaleIntercept="-100", **elements)).shown()
    expected = [reference(v - 100, centre, width, function) for v in values]
    assert shown.dtype == np.float32
    assert np.allclose(shown.ravel(), expected, atol=1e-3)


def test_the_first_of_several_windows_is_used() -> None:
    several = read_one(instance(RAMP, WindowCenter=["300", "10"], WindowWidth=["200", "5"]))
    assert np.array_equal(several.shown(), read_one(instance(RAMP, WindowCenter="300", WindowWidth="200")).shown())


@pytest.mark.parametrize(
    ("centre", "width", "function"),
    [("40", "0", "LINEAR"), ("40", "-5", "LINEAR_EXACT"), ("", "80", "LINEAR"), ("40", "0", "SOMETHING")],
)
def test_an_odd_window_falls_back_to_the_full_range(centre: str, width: str, function: str) -> None:
    frame = read_one(instance(RAMP, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function))
    assert np.array_equal(frame.shown(), RAMP)
    assert frame.warnings == ("the VOI window in the header is not usable; the picture is shown with its full range",)


def test_a_window_that_is_no_number_falls_back_to_the_full_range() -> None:
    content = saved(instance(RAMP, WindowCenter="1234", WindowWidth="5678"))
    frame = read_frames(content.replace(b"1234", b"abcd"), "x")[0]
    assert np.array_equal(frame.shown(), RAMP)
    assert any("not usable" in warning for warning in frame.warnings)


@pytest.mark.parametrize(
    "elements", [{}, {"WindowCenter": "300", "WindowWidth": "400"}, {"RescaleSlope": "2", "RescaleIntercept": "7"}]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_monochrome1_is_inverted_monochrome2(elements: dict[str, str], dtype: type) -> None:
    stored = (RAMP % 256).astype(dtype)
    two = read_one(instance(stored, "MONOCHROME2", **elements))
    one = read_one(instance(stored, "MONOCHROME1", **elements))
    for both in ((one.pixels, two.pixels), (one.shown(), two.shown())):
        total = both[0].astype(float) + both[1]
        assert np.ptp(both[1]) > 0
        assert np.allclose(total, total[0, 0])


def lut_item(entries: NDArray[np.uint16], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def test_voi_lut_agrees_with_pydicom() -> None:
    entries = np.sqrt(np.linspace(0, 4095**2, 300)).astype(np.uint16)
    ds = instance(RAMP, VOILUTSequence=[lut_item(entries, 100, 12)])
    shown = read_one(ds).shown()
    assert np.allclose(shown, apply_voi(RAMP, ds).astype(float) * 255 / 4095, atol=1e-3)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("vr, first", [("US", 65536 - 1024), ("SS", -1024)])
def test_a_voi_lut_of_hounsfield_units_begins_below_zero(syntax: uid.UID, vr: str, first: int) -> None:
    entries = np.arange(RAMP.size).astype(np.uint16)
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries), first, 16])
    item.add_new("LUTData", "OW", entries.tobytes())
    ds = instance(RAMP, VOILUTSequence=[item], RescaleSlope="1", RescaleIntercept="-1024")
    ds.file_meta.TransferSyntaxUID = syntax
    assert np.allclose(read_one(ds).shown(), RAMP * (255 / 65535))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("count", [200, 201])
def test_entries_of_eight_bits_may_be_two_in_a_word(syntax: uid.UID, count: int) -> None:
    entries = np.linspace(255, 0, count).astype(np.uint8)
    big = syntax == uid.ExplicitVRBigEndian
    packed = np.frombuffer(entries.tobytes() + bytes(count % 2), "<u2").astype(">u2" if big else "<u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 100, 8])
    item.add_new("LUTData", "OW", packed.tobytes())
    ds = instance(RAMP.astype(">u2" if big else "<u2"), VOILUTSequence=[item])
    ds.file_meta.TransferSyntaxUID = syntax
    plain = instance(RAMP, VOILUTSequence=[lut_item(entries.astype(np.uint16), 100, 8)])
    assert np.array_equal(read_one(ds).shown(), read_one(plain).shown())
    assert np.ptp(read_one(ds).shown()) > 200


def test_modality_lut_is_applied_before_the_window() -> None:
    entries = (np.arange(RAMP.size) // 2).astype(np.uint16)
    ds = instance(RAMP, ModalityLUTSequence=[lut_item(entries, 0, 16)], WindowCenter="240", WindowWidth="101")
    expected = [reference(v // 2, 240, 101, "LINEAR") for v in RAMP.ravel().tolist()]
    assert np.allclose(read_one(ds).shown().ravel(), expected, atol=1e-3)
    assert np.array_equal(read_one(ds).pixels, RAMP // 2)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", [{}, {"WindowCenter": "500", "WindowWidth": "600"}])
def test_padding_is_outside_of_the_picture(photometric: str, elements: dict[str, str]) -> None:
    stored = RAMP.astype(np.int16) + 10
    stored[0, :5], stored[1, :5] = -2000, -1990
    found = read_one(instance(stored, photometric, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, **elements))
    padded = stored <= -1990
    assert found.padding is not None
    assert np.array_equal(found.padding, padded)
    shown = found.shown()
    assert shown[padded].max() <= shown[~padded].min() < shown[~padded].max()
    if elements:
        assert shown[padded].max() == 0
    assert (prepare(found, FRAME).pixels[0, :3] == 0).all()


def test_padding_of_a_bright_picture_is_black_and_not_as_dark_as_its_darkest() -> None:
    stored = np.zeros((64, 64), np.uint8)
    stored[16:48, 16:48] = 169 + RAMP[:32, :32] % 79
    for dtype, factor in ((np.uint8, 1), (np.uint16, 10)):
        found = read_one(instance(stored.astype(dtype) * dtype(factor), PixelPaddingValue=0))
        assert np.array_equal(found.shown(), stored.astype(float) * factor)
        seen, untold = prepare(found, FRAME), prepare(replace(found, padding=None), FRAME)
        assert (seen.region.width, seen.unseen) == (pytest.approx(33.28), 0.75)
        assert seen.pixels[1:-1, 1:-1].min() < 40 < 150 < untold.pixels[10:22, 10:22].min()


def in_floats(values: NDArray[np.float32], **elements: Any) -> Dataset:
    """An instance with Float Pixel Data (7FE0,0008)."""
    ds = instance(np.zeros(values.shape, np.uint16), BitsAllocated=32, **elements)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.FloatPixelData = values.tobytes()
    return ds


def test_padding_of_floats_leaves_the_rest_its_contrast() -> None:
    values = RAMP.astype(np.float32)
    values[0, :5], values[1, :5] = -1e30, -2e30
    found = read_one(in_floats(values, FloatPixelPaddingValue=-1e30, FloatPixelPaddingRangeLimit=-3e30))
    padded = values < 0
    assert found.padding is not None
    assert np.array_equal(found.padding, padded)
    assert -5.0 * RAMP.max() < found.shown()[padded].min() <= found.shown()[padded].max() <= RAMP[~padded].min()
    assert np.array_equal(found.shown()[~padded], RAMP[~padded])


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": "500", "WindowWidth": "600"}])
@pytest.mark.parametrize("gap", [np.nan, -np.inf])
def test_what_is_no_number_is_dark_and_leaves_the_rest_its_contrast(gap: float, elements: dict[str, str]) -> None:
    values = RAMP.astype(np.float32)
    values[0, :5] = gap
    found, whole = read_one(in_floats(values, **elements)), read_one(in_floats(RAMP.astype(np.float32), **elements))
    real = np.isfinite(values)
    for seen, expected in ((found.pixels, whole.pixels), (found.shown(), whole.shown())):
        assert np.array_equal(seen[real], expected[real])
        assert np.all(seen[~real] == seen[real].min())
    assert "pixels without a finite value; shown as the darkest" in found.warnings
    assert len(np.unique(prepare(found, FRAME).pixels)) > 100


def test_values_that_a_rescale_takes_out_of_range_are_no_values() -> None:
    found = read_one(instance(RAMP.astype(np.uint16), RescaleSlope="1e37", RescaleIntercept="0"))
    assert np.isfinite(found.pixels).all()
    assert any("without a finite value" in warning for warning in found.warnings)


def test_an_image_of_no_numbers_is_refused() -> None:
    with pytest.raises(errors.CorruptImage):
        read_one(in_floats(np.full(RAMP.shape, np.nan, np.float32)))


def test_rgb_ybr_and_palette_agree() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:8], rgb[8:] = (200, 40, 90), (30, 30, 30)
    from_rgb = read_one(instance(rgb, "RGB"))
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    from_ybr = read_one(instance(ybr, "YBR_FULL"))
    palette = instance((rgb[..., 0] == 30).astype(np.uint8), "PALETTE COLOR")
    for name, values in (("Red", (200, 30)), ("Green", (40, 30)), ("Blue", (90, 30))):
        palette.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [2, 0, 8])
        palette.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes(values))
    from_palette = read_one(palette)
    assert from_rgb.colour == pytest.approx(0.5 * 160 / 255)
    for other in (from_ybr, from_palette):
        assert other.colour == pytest.approx(from_rgb.colour, abs=0.01)
        assert np.abs(other.pixels.astype(int) - from_rgb.pixels).max() <= 1


def test_frames_keep_their_order_and_their_own_window() -> None:
    stack = np.stack([RAMP, RAMP + 1000, RAMP + 2000])
    ds = instance(stack, frames=3)
    ds.PerFrameFunctionalGroupsSequence = []
    for centre in ("100", "200", "300"):
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, "2001"
        group.FrameVOILUTSequence = [window]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    frames = read_frames(saved(ds), "m.dcm")
    assert [frame.name for frame in frames] == ["m.dcm#1", "m.dcm#2", "m.dcm#3"]
    for index, frame in enumerate(frames):
        expected = reference(1000 * index + 5, 100 * (index + 1), 2001, "LINEAR")
        assert frame.shown()[0, 5] == pytest.approx(expected, abs=1e-3)
        assert np.array_equal(frame.pixels, stack[index])


def test_lossy_compression_is_told() -> None:
    assert "lossy compressed source" in read_one(instance(RAMP, LossyImageCompression="01")).warnings
    assert "lossy compressed source" not in read_one(instance(RAMP, LossyImageCompression="00")).warnings


# DICOM: transfer syntaxes


@pytest.mark.parametrize(
    "syntax",
    [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_lossless_syntaxes_are_exact(syntax: uid.UID, dtype: type) -> None:
    stored = (RAMP % 256).astype(dtype)
    ds = instance(np.stack([stored, stored[::-1]]), frames=2)
    if syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    first, second = read_frames(saved(ds), "x")
    assert np.array_equal(first.pixels, stored)
    assert np.array_equal(second.pixels, stored[::-1])


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian], ids=lambda s: s.keyword)
@pytest.mark.parametrize("meta", [True, False])
def test_native_syntaxes_with_and_without_meta_information(syntax: uid.UID, meta: bool) -> None:
    little = syntax.is_little_endian
    ds = instance(RAMP)
    ds.PixelData = RAMP.astype("<u2" if little else ">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    content = BytesIO()
    if meta:
        ds.save_as(content, enforce_file_format=True)
    else:
        del ds.file_meta
        ds.save_as(content, implicit_vr=syntax.is_implicit_VR, little_endian=little)
    assert np.array_equal(read_frames(content.getvalue(), "x")[0].pixels, RAMP)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], ids=lambda s: s.keyword)
def test_8_bit_jpeg(syntax: uid.UID) -> None:
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    ds = instance(smooth)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([encode(Image.fromarray(smooth), "JPEG", quality=98)])
    assert np.abs(read_one(ds).pixels.astype(int) - smooth).max() <= 3


def test_12_bit_jpeg_extended() -> None:
    (frame,) = read_frames(bundled("JPGExtended.dcm"), "x")
    assert frame.pixels.shape == (1024, 256)
    assert frame.pixels[420, 140] == 244  # the values of pydicom's own tests, made with another decoder
    assert frame.pixels[230, 120] == 95


def test_every_compressed_copy_of_one_slice_agrees() -> None:
    expected = read_frames(bundled("MR_small.dcm"), "x")[0]
    assert expected.shown().max() == 255
    for suffix in ("RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "expb", "implicit"):
        (frame,) = read_frames(bundled(f"MR_small_{suffix}.dcm"), "x")
        assert np.array_equal(frame.pixels, expected.pixels), suffix


def test_jpeg_lossless_sv1(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    stored = (RAMP * 4).astype(np.uint16)
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    source.write_bytes(saved(instance(stored)))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    content = target.read_bytes()
    assert pydicom.dcmread(BytesIO(content)).file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
    assert np.array_equal(read_frames(content, "x")[0].pixels, stored)


# DICOM: refusals


def test_video_names_its_transfer_syntax() -> None:
    ds = instance(RAMP)
    ds.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    ds.PixelData = encapsulate([b"\x00\x00\x01\xb3"])
    with pytest.raises(errors.UnsupportedTransferSyntax, match="MPEG-4"):
        read_one(ds)


def test_a_private_transfer_syntax_is_not_repeated() -> None:
    content = saved(instance(RAMP)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.10008.1.2.1\0")
    with pytest.raises(errors.UnsupportedTransferSyntax) as caught:
        read_frames(content, "x")
    assert "999" not in str(caught.value)


def test_no_pixel_data() -> None:
    with pytest.raises(errors.NoPixelData):
        read_frames(bundled("test-SR.dcm"), "x")


def test_a_run_beyond_the_end_of_an_rle_segment_is_corrupt() -> None:
    """Found by the mutations below in a decoder that panics there, past every `except Exception`."""
    ds = instance(RAMP)
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    first = int.from_bytes(frame[4:8], "little")  # offset of the first segment (PS3.5 G.5)
    for run in (b"\x7f\x01", b"\x81"):
        ds.PixelData = encapsulate([frame[:first] + run])
        with pytest.raises(errors.CorruptImage):
            read_one(ds)


def test_truncated_pixel_data() -> None:
    with pytest.raises(errors.CorruptImage):
        read_frames(saved(instance(RAMP))[:-200], "x")


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 20), ("Columns", 39)])
@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.keyword)
def test_a_codestream_of_another_size_is_refused(syntax: uid.UID, keyword: str, value: int) -> None:
    ds = instance(RAMP)
    ds.compress(syntax, generate_instance_uid=False)
    setattr(ds, keyword, value)
    with pytest.raises(errors.CorruptImage, match="another size"):
        read_one(ds)


def test_jpeg_ls_without_its_end_is_refused() -> None:
    """Found by mutation: the decoder runs for ten seconds where a scan is not ended by a marker."""
    ds = instance(RAMP)
    ds.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    end = frame.rindex(b"\xff\xd9")
    for tail in (b"", b"\x02\x02", b"\xff\xd9\x02\x02"):
        ds.PixelData = encapsulate([frame[:end] + tail])
        with pytest.raises(errors.CorruptImage, match="no end"):
            read_one(ds)


@pytest.mark.parametrize(
    "elements", [{"Rows": 65000, "Columns": 65000}, {"NumberOfFrames": "513"}, {"Rows": 8000, "NumberOfFrames": "500"}]
)
def test_a_header_that_announces_too_much(elements: dict[str, Any]) -> None:
    with pytest.raises(errors.TooManyPixels):
        read_one(instance(RAMP, **elements))


def test_a_deflate_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.images.parsing._MAX_INFLATED", 1 << 20)
    ds = instance(np.zeros((2048, 2048), np.uint8))
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    content = saved(ds)
    assert len(content) < 1 << 16
    with pytest.raises(errors.TooManyPixels):
        read_frames(content, "x")


def test_an_unknown_photometric_interpretation() -> None:
    with pytest.raises(errors.UnsupportedFormat):
        read_one(instance(RAMP, PhotometricInterpretation="HSV"))


def test_nothing_of_the_header_reaches_messages_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    ds = instance(RAMP, PatientBirthDate="19010203")
    ds.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    content = saved(ds).replace(b"19010203", b"SECRETXY").replace(b"\xff\x52", b"\xff\x00")
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.CorruptImage) as caught:
        read_frames(content, "Secret.dcm")
    assert "secret" not in (str(caught.value) + caplog.text).lower()
    assert caught.value.__suppress_context__


def test_what_pydicom_warns_of_in_a_header_is_not_printed() -> None:
    """Its texts can quote values; here explicit elements where implicit ones are announced."""
    content = bytes(128) + b"DICM" + bytes(4) + b"AA" + bytes(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(errors.UnreadableImage):
            read_frames(content, "x")
    assert caught == []


# Anything at all


def outcome(content: bytes) -> None:
    """Frames or an error of the tree; anything else escapes and fails the test."""
    try:
        frames = read_frames(content, "x")
    except errors.UnreadableImage:
        return
    assert frames
    for frame in frames:
        assert frame.pixels.ndim == 2
        assert frame.pixels.dtype in (np.uint8, np.float32)
        assert 0 <= frame.colour <= 1


@BOUNDED
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM"]))
def test_arbitrary_bytes_give_frames_or_our_errors(body: bytes, start: bytes) -> None:
    outcome(start + body)


def seeds() -> dict[str, bytes]:
    small = (RAMP[:16, :16] % 256).astype(np.uint8)
    files = {
        "png": encode(Image.fromarray(small)),
        "jpeg": encode(Image.fromarray(small).convert("RGB"), "JPEG"),
        "windowed": saved(
            instance(
                RAMP, WindowCenter="5", WindowWidth="9", RescaleSlope="2", RescaleIntercept="1", PixelPaddingValue=3
            )
        ),
        "lut": saved(instance(RAMP, VOILUTSequence=[lut_item(RAMP[0], 0, 12)])),
        "rgb": saved(instance(np.dstack([small] * 3), "RGB")),
    }
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        ds = instance(RAMP)
        ds.compress(syntax, generate_instance_uid=False)
        files[syntax.keyword] = saved(ds)
    return files


SEEDS = seeds()


@pytest.mark.parametrize("seed", SEEDS)
@BOUNDED
@given(data=st.data())
def test_mutated_files_give_frames_or_our_errors(seed: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(content[: data.draw(st.sampled_from([None, len(content) // 2, -7]))]))


# The tree of errors


def subclasses(root: type[errors.RadiolucentError]) -> list[type[errors.RadiolucentError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in subclasses(child))]


def test_every_error_has_its_own_slug_and_is_drawn_in_the_docstring() -> None:
    tree = subclasses(errors.RadiolucentError)
    assert len(tree) >= 18
    assert len({error.kind for error in tree}) == len(tree)
    lines = (errors.__doc__ or "").splitlines()
    for error in tree:
        (line,) = [line for line in lines if error.__name__ in line.split()]
        assert str(error.status) in line


def test_errors_survive_pickling_with_their_detail() -> None:
    copy = pickle.loads(pickle.dumps(errors.CorruptImage("why")))  # noqa: S301
    assert type(copy) is errors.CorruptImage
    assert copy.detail == "why"
    assert errors.CorruptImage().detail == errors.CorruptImage.title


def test_limits_hold_at_their_edge() -> None:
    pixels.check_size(8192, 8192)
    with pytest.raises(errors.TooManyPixels):
        pixels.check_size(8192, 8193)
    pixels.check_size(2**14, 2**12)
    pixels.check_size(1, 64)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (65, 1), (2**14 + 1, 2**11)])
def test_what_would_be_far_larger_as_a_square_is_refused(shape):
    image = np.zeros(shape, np.uint8)
    for content in (encode(Image.fromarray(image)), saved(instance(image))):
        with pytest.raises(errors.TooManyPixels, match="side"):
            read_frames(content, "file")


def _progressive(side: int, more: int) -> bytes:
    """A progressive JPEG whose last scan comes `more` times again: 33 bytes each, and a walk over all blocks."""
    jpeg = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rfind(b"\xff\xda") : -2] * more + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_unread_also_within_dicom():
    (frame,) = read_frames(_progressive(64, 10), "file")
    assert frame.pixels.shape == (64, 64)
    ds = instance(np.zeros((64, 64), np.uint8))
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    ds.PixelData = encapsulate([_progressive(64, 100)])
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    for content in (_progressive(8192, 30_000), buffer.getvalue()):
        with pytest.raises(errors.SlowImage):
            read_frames(content, "file")


def test_many_frames_that_are_slow_each_are_too_slow_together(monkeypatch):
    ds = instance(np.zeros((8, 64, 64), np.uint8), frames=8)
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    assert len(read_frames(buffer.getvalue(), "file")) == 8
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr(patience, "monotonic", lambda: float(next(ticks)))
    with pytest.raises(errors.SlowImage):
        read_frames(buffer.getvalue(), "file")


def test_where_the_lock_must_not_be_held_pillow_decodes_to_the_same(monkeypatch):
    content = uploads()["MR"][0].content
    (sooner,) = read_frames(content, "a")
    monkeypatch.setattr(reading, "read_plain", None)
    (found,) = read_frames(content, "a", locked=False)
    assert found.pixels.dtype == sooner.pixels.dtype
    assert (found.pixels == sooner.pixels).all()
