from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from service.images.charsets import decode

CHARSETS = st.lists(st.sampled_from(["", "ISO_IR 203", "NONE", *python_encoding]), max_size=3)
PIECES = st.lists(
    st.sampled_from([b"\x1b$B", b"\x1b$)A", b"\x1b(J", b"\x1b-F", b"\x1b", b"^=", b"\\", b"\xb2\xe2", b";3ED"])
)


@given(PIECES.map(b"".join), CHARSETS)
def test_any_bytes_are_text_without_escapes_or_left_to_others(value: bytes, charsets: list[str]) -> None:
    text = decode(value, charsets)
    assert text is None or "\x1b" not in text


def test_what_pydicom_reads_is_left_to_it() -> None:
    assert decode("Jérôme".encode("latin_1"), ["ISO_IR 100"]) is None


def test_after_a_delimiter_the_first_set_is_valid_again() -> None:
    stored = b"\x1b-L" + "Люк".encode("iso8859_5") + b"^" + "é".encode("latin_1")
    assert decode(stored, ["ISO 2022 IR 100", "ISO 2022 IR 144"]) == "Люк^é"
    assert decode(stored[:-1] + "я".encode("iso8859_5"), ["", "ISO 2022 IR 144"]) == "Люк^я"
