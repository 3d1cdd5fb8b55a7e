from __future__ import annotations

import numpy as np
import pytest
from bright import SIDE, png
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.reader_study.cases import list_sha256, read_cases
from service.reader_study.pixels import pack, unpack
from service.types import Frame

CLASSES = ("bright", "dark")


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(np.full((SIDE, SIDE), 50 * number, np.uint8)))
    return tmp_path


def read(folder, *lines: str, header: str = "file,truth,training"):
    table = folder / "cases.csv"
    table.write_text("\n".join([header, *lines]), "utf-8-sig")
    return read_cases(table, folder, CLASSES)


def test_a_list_is_read(folder):
    cases = read(folder, "0.png,bright,yes,", "1.png,dark,no,4 5 10 11", header="file,truth,training,region")
    assert [(c.line, c.truth, c.training, c.region) for c in cases] == [
        (2, "bright", True, None),
        (3, "dark", False, (4, 5, 10, 11)),
    ]
    assert cases[0].sha256 != cases[1].sha256


def test_semicolons_do_too(folder):
    assert len(read(folder, "0.png;bright;no", header="file;truth;training")) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("9.png,bright,no", "no such file"),
        ("../secret.png,bright,no", "no such file"),
        (",bright,no", "no such file"),
        ("1.png,purple,no", "truth must be one of bright, dark"),
        ("1.png,bright,perhaps", "training must be yes or no"),
        ("0.png,bright,no", "the same image as in line 2"),
        ("1.png", "truth must be one of"),
    ],
)
def test_a_bad_line_is_named_by_number_and_not_by_file(folder, line, says):
    (folder.parent / "secret.png").write_bytes(b"x")
    with pytest.raises(InvalidParameter, match=r"cases\.csv, line 3: ") as caught:
        read(folder, "0.png,dark,no", line)
    assert says in str(caught.value)
    assert ".png" not in str(caught.value)


@pytest.mark.parametrize("region", ["1 2 3", "a b c d", "-1 0 5 5", "0 0 0 5"])
def test_a_region_is_four_numbers_in_the_image(folder, region):
    with pytest.raises(InvalidParameter, match="line 2: region"):
        read(folder, f"0.png,dark,no,{region}", header="file,truth,training,region")


@pytest.mark.parametrize("header", ["file,truth", "file,truth,training,regoin", ""])
def test_columns_are_checked(folder, header):
    with pytest.raises(InvalidParameter, match="columns"):
        read(folder, "0.png,dark,no", header=header)


def test_all_faults_are_told_at_once(folder):
    with pytest.raises(InvalidParameter) as caught:
        read(folder, "0.png,purple,no", "9.png,dark,no")
    assert len(str(caught.value).splitlines()) == 2


def test_training_cases_alone_are_no_study(folder):
    with pytest.raises(InvalidParameter, match="besides training"):
        read(folder, "0.png,dark,yes")


def test_the_digest_of_a_list_changes_with_what_matters(folder):
    one = list_sha256(read(folder, "0.png,dark,no", "1.png,dark,no"))
    assert one == list_sha256(read(folder, "0.png,dark,0", "1.png,dark,false"))
    assert one != list_sha256(read(folder, "0.png,bright,no", "1.png,dark,no"))
    assert one != list_sha256(read(folder, "0.png,dark,yes", "1.png,dark,no"))
    assert one != list_sha256(read(folder, "0.png,dark,no", "2.png,dark,no"))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4000), st.integers(0, 2**32 - 1))
def test_what_a_scanner_stores_in_12_bits_comes_back_as_it_was(height, width, lowest, seed):
    values = np.random.default_rng(seed).integers(lowest, 4096, (height, width)).astype(np.float32)
    packed = pack(Frame("f", values))
    again = unpack(packed) * packed.layout.slope + packed.layout.intercept
    assert np.array_equal(np.round(again), values)
    assert packed.layout.window[0] < packed.layout.window[1]


def test_eight_bits_stay_as_they_are():
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    packed = pack(Frame("f", values))
    assert np.array_equal(unpack(packed), values)
    assert (packed.layout.width, packed.layout.height, packed.layout.bits) == (32, 8, 8)
    assert packed.layout.window == (0, 255)
