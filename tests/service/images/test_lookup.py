"""Palettes, Modality and VOI LUTs, rescales and windows, as writers store them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from service import errors
from service.images.windows import Window, apply_window, read_rescale, read_window, usable
from tests.service.images.test_reading import RAMP, instance, lut_item, read_one

INDEX = (RAMP % 256).astype(np.uint8)
GREY = np.arange(256)
COLOURS = ("Red", "Green", "Blue")


def words(values: NDArray[Any], order: str = "<") -> bytes:
    return values.astype(f"{order}u2").tobytes()


def with_palette(descriptor: list[int], data: bytes, stored: NDArray[Any] = INDEX, prefix: str = "") -> Dataset:
    """The same table for all colours."""
    ds = instance(stored, "PALETTE COLOR")
    for colour in COLOURS:
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", descriptor)
        ds.add_new(f"{prefix}{colour}PaletteColorLookupTableData", "OW", data)
    return ds


# Palettes


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([256, 0, 16], words(GREY * 257)),
        ([256, 0, 16], words(GREY * 256)),
        ([256, 0, 12], words(GREY * 16)),
        ([256, 0, 8], bytes(range(256))),
        ([256, 0, 8], words(GREY)),
        ([256, 0, 8], words(GREY * 256)),
        ([256, 0, 16], bytes(range(256))),
        ([256, 0, 16], words(GREY)),
        ([255, 0, 8], bytes(range(255)) + b"\0"),
    ],
    ids=["16", "high byte", "12", "packed", "words", "high byte of 8", "packed 16", "words of 16", "odd"],
)
def test_a_palette_is_read_in_every_layout(descriptor: list[int], data: bytes) -> None:
    shown = read_one(with_palette(descriptor, data)).pixels
    assert np.array_equal(shown, np.minimum(INDEX, descriptor[0] - 1))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("prefix", ["", "Segmented"])
def test_a_palette_in_big_endian_is_that_in_little_endian(bits: int, packed: bool, prefix: str) -> None:
    entries = GREY * 257 if bits == 16 else GREY
    if prefix:  # one entry, and a line to the last
        entries = np.array([0, 1, 0, 1, 255, entries[-1]])
    packed = packed or bool(prefix)
    plain = words(entries) if bits == 16 or not packed else entries.astype(np.uint8).tobytes()
    swapped = np.frombuffer(plain, "<u2").astype(">u2").tobytes()
    ds = with_palette([256, 0, bits], swapped, prefix=prefix)
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()  # OW below
    ds["PixelData"].VR = "OW"
    assert np.array_equal(read_one(ds).pixels, INDEX)
    assert np.array_equal(read_one(with_palette([256, 0, bits], plain, prefix=prefix)).pixels, INDEX)


def test_the_first_input_value_of_a_palette_is_signed_where_the_pixels_are() -> None:
    stored = (INDEX.astype(int) - 128).astype(np.int8)
    for first in (-128, 65536 - 128):
        ds = with_palette([256, first % 65536, 16], words(GREY * 257), stored)
        if first < 0:
            for colour in COLOURS:
                ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "SS", [256, first, 16])
        for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
            ds.file_meta.TransferSyntaxUID = syntax
            assert np.array_equal(read_one(ds).pixels, INDEX)


def test_a_palette_of_zero_entries_has_65536() -> None:
    stored = INDEX.astype(np.uint16) * 257
    shown = read_one(with_palette([0, 0, 16], words(np.arange(65536)), stored)).pixels
    assert np.array_equal(shown, INDEX)


def test_more_than_256_entries_of_eight_bits_are_all_used() -> None:
    stored = INDEX.astype(np.uint16) * 16
    shown = read_one(with_palette([4096, 0, 8], (np.arange(4096) // 16).astype(np.uint8).tobytes(), stored)).pixels
    assert np.array_equal(shown, INDEX)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_missing_descriptor_is_that_of_another_colour(colour: str) -> None:
    ds = with_palette([256, 0, 16], words(GREY * 257))
    del ds[f"{colour}PaletteColorLookupTableDescriptor"]
    assert np.array_equal(read_one(ds).pixels, INDEX)


def test_a_palette_without_data_or_descriptor_is_said_to_be_missing() -> None:
    for keyword in ("RedPaletteColorLookupTableData", "Descriptor", "empty"):
        ds = with_palette([256, 0, 16], words(GREY * 257))
        for name in [element.keyword for element in ds if keyword in element.keyword]:
            del ds[name]
        if keyword == "empty":
            ds.GreenPaletteColorLookupTableData = b""
        with pytest.raises(errors.CorruptImage, match="palette"):
            read_one(ds)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(0, 65535), min_size=300, max_size=300),
    first=st.integers(0, 300),
    length=st.integers(1, 300),
)
def test_palettes_agree_with_pydicom(values: list[int], first: int, length: int) -> None:
    entries = np.array([*values[: length - 1], 65535])
    ds = with_palette([length, first, 16], words(entries), RAMP)
    expected = apply_color_lut(RAMP, ds)[..., 0] >> 8
    assert np.array_equal(read_one(ds).pixels, expected)


# Modality and VOI LUTs


def empty_items() -> list[Dataset]:
    nothing, no_data, no_descriptor, no_length = Dataset(), Dataset(), Dataset(), Dataset()
    no_data.add_new("LUTDescriptor", "US", [256, 0, 8])
    no_descriptor.add_new("LUTData", "US", [1, 2, 3])
    no_length.add_new("LUTDescriptor", "US", [4, 0, 16])
    no_length.add_new("LUTData", "OW", b"")
    return [nothing, no_data, no_descriptor, no_length]


@pytest.mark.parametrize("item", empty_items(), ids=["nothing", "no data", "no descriptor", "empty data"])
def test_a_table_without_content_is_ignored_with_a_note(item: Dataset) -> None:
    tables = {"ModalityLUTSequence": [item], "VOILUTSequence": [item]}
    notes = tuple(f"the {name} LUT in the header is empty or damaged; ignored" for name in ("Modality", "VOI"))
    full = read_one(instance(RAMP, **tables))
    assert np.array_equal(full.pixels, RAMP)
    assert full.warnings[:2] == notes
    others: dict[str, Any] = {"WindowCenter": "900", "WindowWidth": "800", "RescaleSlope": "2"}
    windowed = read_one(instance(RAMP, **tables, **others))
    assert np.array_equal(windowed.pixels, read_one(instance(RAMP, **others)).pixels)
    assert windowed.warnings == notes


def test_the_first_table_with_content_counts() -> None:
    item = lut_item(RAMP.ravel()[::-1].copy(), 0, 12)
    both = read_one(instance(RAMP, VOILUTSequence=[Dataset(), item]))
    assert np.array_equal(both.pixels, read_one(instance(RAMP, VOILUTSequence=[item])).pixels)
    assert not both.warnings


def test_entries_wider_than_announced_still_end_at_white() -> None:
    entries = np.linspace(0, 4095, RAMP.size).astype(np.uint16)
    shown = read_one(instance(RAMP, VOILUTSequence=[lut_item(entries, 0, 8)])).pixels
    assert np.array_equal(shown, read_one(instance(RAMP, VOILUTSequence=[lut_item(entries, 0, 12)])).pixels)


# Rescale and window


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"RescaleIntercept": "-1024"}, (1, -1024)),
        ({"RescaleSlope": "2"}, (2, 0)),
        ({"RescaleSlope": "", "RescaleIntercept": "5"}, (1, 5)),
        ({"RescaleSlope": "1"}, None),
        ({}, None),
    ],
)
def test_one_half_of_a_rescale_is_enough(elements: dict[str, str], expected: tuple[float, float] | None) -> None:
    notes: list[str] = []
    assert read_rescale(header(**elements), notes) == expected
    assert not notes


@pytest.mark.parametrize("elements", [{"RescaleSlope": "0", "RescaleIntercept": "5"}, {"RescaleSlope": "0"}])
def test_a_slope_of_zero_is_not_usable(elements: dict[str, str]) -> None:
    notes: list[str] = []
    assert read_rescale(header(**elements), notes) is None
    assert len(notes) == 1


def header(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("function", [None, "", "LINEAR", "linear "])
def test_a_linear_window_narrower_than_one_is_taken_exactly(function: str | None) -> None:
    notes: list[str] = []
    named = {} if function is None else {"VOILUTFunction": function}
    found = read_window(header(WindowCenter="0.5", WindowWidth="0.8", **named), notes)
    assert found == Window(0.5, 0.8, "LINEAR_EXACT")
    assert usable(found)
    assert not notes
    shown = apply_window(np.array([[0.1, 0.5, 0.9, 2.0]]), found)
    assert np.allclose(shown, [[0, 127.5, 255, 255]])


@pytest.mark.parametrize(
    ("function", "known", "noted"),
    [
        ("SAMPLED_SIGMOID", "SIGMOID", False),
        ("SIGMOID", "SIGMOID", False),
        ("LINEAR_EXACT", "LINEAR_EXACT", False),
        (["SIGMOID", "LINEAR"], "SIGMOID", False),
        ("OTHER", "LINEAR", True),
    ],
)
def test_window_functions(function: str | list[str], known: str, noted: bool) -> None:
    notes: list[str] = []
    found = read_window(header(WindowCenter="40", WindowWidth="80", VOILUTFunction=function), notes)
    assert found is not None
    assert found.function == known
    assert len(notes) == noted
