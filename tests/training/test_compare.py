from __future__ import annotations

from pathlib import Path

import pytest

from training.__main__ import main
from training.compare import FIGURES, MISSING, compare, load_figures

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "reports"
OWN = """
[[figure]]
model = "unet"
metric = "dice"
value = 0.25
source = "a made-up table"
note = "other data"
"""


def rows(text: str, model: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {model}")
    ]


def test_what_the_study_does_not_give_is_said_and_not_guessed():
    text = compare(REPORTS, load_figures(FIGURES))
    ((_, _, measure, study, ours),) = rows(text, "U-Net")
    assert (measure, study) == ("Dice", MISSING)
    assert ours[0] == "0"
    assert "10.1186/s12880-024-01292-7" in text  # a figure that is given has its source
    assert all(row[3] == MISSING for row in rows(text, "conditional GAN"))


def test_a_figure_is_entered_with_its_source(tmp_path, capsys):
    (tmp_path / "own.toml").write_text(OWN)
    assert main(["compare", "--reports", str(REPORTS), "--figures", str(tmp_path / "own.toml")]) == 0
    text = capsys.readouterr().out
    assert rows(text, "U-Net")[0][3] == "0.2500 (other data)"
    assert "- unet, dice: a made-up table" in text
    assert rows(text, "ResNet-50")[0][3] == MISSING


def test_the_tables_go_between_the_marks_of_a_document(tmp_path):
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- compare -->\nold\n<!-- end -->\nafter\n")
    arguments = ["compare", "--reports", str(REPORTS), "--into", str(document)]
    assert main(arguments) == 0
    written = document.read_text()
    assert written.startswith("before\n<!-- compare -->\n**Table 1.**")
    assert written.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in written
    assert main(arguments) == 0
    assert document.read_text() == written


@pytest.mark.parametrize("fault", ["marks", "reports", "figures"])
def test_what_is_missing_is_named(tmp_path, capsys, fault):
    document = tmp_path / "doc.md"
    document.write_text("no marks" if fault == "marks" else "<!-- compare -->\n<!-- end -->")
    figures = tmp_path / "figures.toml"
    figures.write_text('[[figure]]\nmodel = "unet"\n' if fault == "figures" else "")
    reports = tmp_path if fault == "reports" else REPORTS
    arguments = ["compare", "--reports", str(reports), "--figures", str(figures), "--into", str(document)]
    assert main(arguments) == 2
    words = {"marks": "there are no marks", "reports": "No such file", "figures": "figure.0.source"}[fault]
    assert words in capsys.readouterr().err
