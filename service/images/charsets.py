"""Text with code extensions (ISO 2022; PS3.5 6.1.2.5, PS3.3 C.12.1.1.2), read by what its escape sequences say.

pydicom leaves the escape sequences of ISO 2022 IR 58 in the text, knows no ISO_IR 203, and reads no set that Specific
Character Set (0008,0005) forgets to name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.charset import python_encoding

TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_ESCAPE = re.compile(rb"(\x1b(?:\$[()]?|[()-])[@-~])")
_ASCII = frozenset((b"\x1b(B", b"\x1b(J"))  # what bytes below 0x80 are: G0
_JAPANESE = frozenset((b"\x1b$B", b"\x1b$@", b"\x1b$(D"))
_G1 = {  # what others are
    b"\x1b)I": "shift_jis",  # of which the single bytes are JIS X 0201
    b"\x1b$)A": "gb2312",
    b"\x1b$)C": "euc_kr",
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
}
_LATIN9 = ("ISO_IR 203", "ISO 2022 IR 203")
_ALONE = frozenset(("utf8", "gb18030", "gbk"))  # whose characters are not told from each other by their high bytes
_DELIMITERS = re.compile(rb"([\\^=\t\n\f\r])")


def decode(value: bytes, charsets: Sequence[str]) -> str | None:
    """Decode what pydicom would not: text with escape sequences, or of ISO_IR 203.

    After a delimiter the set of value 1 is valid again, where it has characters beyond ASCII; else the one before goes
    on, for some writers do not repeat the escape sequence.

    Args:
        value: as stored.
        charsets: the values of Specific Character Set, for the element.

    Returns:
        The text without padding; None where pydicom reads it, or where nothing does.
    """
    if b"\x1b" not in value and not set(charsets[:1]) & {*_LATIN9}:
        return None
    try:
        text = _decoded(_ESCAPE.split(value.rstrip(b" \0")), _codec(charsets[0] if charsets else ""))
    except (KeyError, UnicodeError):
        return None
    return None if "\x1b" in text else text


def _decoded(parts: Sequence[bytes], first: str) -> str:
    """Decode escape sequences and what stands between them; `first` is the codec of value 1."""
    high, japanese, text = first, b"", ""
    for part in parts:
        if part in _ASCII or part in _JAPANESE:
            japanese = part if part in _JAPANESE else b""
        elif part[:1] == b"\x1b":
            high = _G1[part]
        elif japanese:
            text += (japanese + part).decode("iso2022_jp_2")
        elif high in _ALONE:
            text += part.decode(high)
        else:
            for piece in _DELIMITERS.split(part):
                text += _plain(piece, high)
                high = first if first and _DELIMITERS.fullmatch(piece) else high
    return text


def _codec(charset: str) -> str:
    """Find the encoding of the bytes from 0x80 on, by value 1 of Specific Character Set; empty where it has none."""
    if charset in _LATIN9:
        return "iso8859_15"
    codec = python_encoding.get(charset, "iso8859").lower()
    return "" if codec in ("iso8859", "iso2022_jp", "iso2022_jp_2") else codec


def _plain(piece: bytes, high: str) -> str:
    """Decode ASCII, and bytes from 0x80 on by their codec."""
    runs = re.findall(rb"[\x80-\xff]+|[\x00-\x7f]+", piece)
    return "".join(run.decode((high or "latin_1") if run[0] >= 0x80 else "ascii") for run in runs)
