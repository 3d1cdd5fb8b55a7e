from __future__ import annotations

import pytest

from benchmarks.tables import DOCUMENTS, README, SECTIONS, main, rewritten


def test_the_documents_say_what_the_committed_results_say():
    assert main(["--check"]) == 0
    text = "".join(path.read_text() for path in DOCUMENTS)
    for name in SECTIONS:
        assert f"<!-- {name} -->" in text


def test_an_edited_figure_is_noticed():
    text = README.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| accuracy, all classes")]
    forged = text.replace(line, line.replace("0.", "1."))
    assert forged != text
    assert rewritten(forged) == text


def test_a_marker_without_a_section_is_an_error():
    with pytest.raises(KeyError):
        rewritten("<!-- nothing -->\n<!-- end -->")
