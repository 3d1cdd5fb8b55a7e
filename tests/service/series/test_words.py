from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.series.words import has_word, words_in


@pytest.mark.parametrize(
    "text",
    [
        "T1",
        "T1w",
        "t1_mprage",
        "T1W_3D",
        "sT1",
        "t1-tfe",
        "AX T1 +C",
        "T1POST",
        "T1Gd",
        "T1-weighted",
        "T1_SE",
        "preT1w",
        "T1加权",
    ],
)
def test_t1_is_a_word(text: str) -> None:
    assert has_word(text, "t1")


@pytest.mark.parametrize(
    "text", ["rest1", "REST1", "dist1", "CEST1", "post1", "right1", "test1", "T10", "T12", "t 1", ""]
)
def test_t1_is_no_word(text: str) -> None:
    assert not has_word(text, "t1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("T1map", "t1 map"),
        ("T1_MAP", "t1 map"),
        ("t1 - map", "t1 map"),
        ("3DT1", "3d t1"),
        ("AXT1", "ax t1"),
        ("AAHScout", "scout"),
        ("MPRAGESag", "mprage"),
        ("MPRAGEsag", "mprage"),
        ("PDw", "pd"),
        ("rfMRI_REST1_LR", "rest"),
    ],
)
def test_words_begin_and_end_where_the_kind_of_signs_changes(text: str, word: str) -> None:
    assert has_word(text, word)


@given(st.text(max_size=64), st.from_regex(r"[a-z0-9]{1,6}( [a-z0-9]{1,6})?", fullmatch=True))
def test_a_word_of_any_text_stands_between_signs(text: str, word: str) -> None:
    assert has_word(f"{text} {word} {text}", word)
    assert words_in(text, [word]) == ([word] if has_word(text, word) else [])
