"""Words of a Series Description (0008,103E): `T1` is one in `sT1W_3D`, `AX T1 +C` and `T1Gd`, and none in `REST1`.

A word begins and ends where the kind of the signs changes: letters, digits, others, and capitals behind small letters
(`preT1w` is `pre T 1 w`). Behind several capitals small letters may be another word, or take the last capital along
(`PDw` is `PD w`, `MPRAGESag` is `MPRAGE Sag`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def has_word(text: str, word: str) -> bool:
    """Tell whether a word is in a text, in any case.

    Args:
        text: of a header.
        word: letters and digits; a space in it stands for any other signs, or for none.
    """
    pattern = r"[\W_]*".join(map(re.escape, word.split()))
    found = re.finditer(f"(?=({pattern}))", text, re.IGNORECASE)  # they may overlap
    return any(_edge(text, one.start(1)) and _edge(text, one.end(1)) for one in found)


def words_in(text: str, words: Iterable[str]) -> list[str]:
    """Those of some words that are in a text, in their order."""
    return [word for word in words if has_word(text, word)]


def _edge(text: str, at: int) -> bool:
    """Tell whether a word may begin or end before the character `at`."""
    if at in (0, len(text)):
        return True
    before, behind = _kind(text[at - 1]), _kind(text[at])
    if before == behind == "capital":
        return _kind(text[at + 1 : at + 2]) == "letter"
    if before == "capital" and behind == "letter":
        return at > 1 and _kind(text[at - 2]) == "capital"
    return before != behind


def _kind(sign: str) -> str:
    if sign.isdigit():
        return "digit"
    if sign.isalpha():
        return "capital" if sign.isupper() else "letter"
    return "other"
