"""The commands, from files to files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from training.__main__ import main
from training.study.analysis import Analysis


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    assert main(["study", "simulate", str(folder), "--readers", "4", "--cases", "24", "--seed", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def out(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert main(["study", "analyse", str(simulated), str(folder), "--bootstrap", "50"]) == 0
    return folder


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_the_page_needs_nothing_else_and_says_what_the_numbers_say(out: Path) -> None:
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "img"} & set(tags)
    references = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    references += [v for _, a in page.tags for k, v in a.items() if k == "xlink:href"]
    assert all(value.startswith("#") for value in references)
    assert tags.count("figure") == 6
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "figure")
    assert "Research use only: not a medical device." in text
    assert "contested" in text
    accuracy = Analysis.model_validate_json((out / "analysis.json").read_bytes()).pooled["accuracy"]
    change = accuracy.difference
    assert f"{change.value:.3f} ({change.low:.3f} to {change.high:.3f})" in page.cells


def test_the_pdf_has_pages_and_its_text_is_no_picture(out: Path) -> None:
    content = (out / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", content)) >= 3
    assert content.count(b"/Subtype /Image") == 6
    assert b"DejaVuSans" in content


def test_pictures_open_and_are_the_same_each_time(simulated: Path, out: Path, tmp_path: Path) -> None:
    assert main(["study", "analyse", str(simulated), str(tmp_path), "--bootstrap", "50"]) == 0
    names = {path.name for path in out.glob("*.png")}
    assert names == {f"{n}.png" for n in ("accuracy", "differences", "ratings", "reliance", "times", "recovery")}
    for name in (*names, "report.html", "analysis.json", "readings.csv", "results.csv"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name
    with Image.open(out / "ratings.png") as picture:
        assert picture.width == 910


def test_the_tables_hold_every_reading_and_result(simulated: Path, out: Path) -> None:
    with (out / "readings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * 24
    for row in rows:
        assert row["correct"] == str(int(row["diagnosis"] == row["truth"]))
        assert (row["trust"] == "NA") == (row["arm"] == "without")
    pooled = json.loads((out / "analysis.json").read_text())["pooled"]
    right = [int(row["correct"]) for row in rows if row["arm"] == "with"]
    assert sum(right) / len(right) == pytest.approx(pooled["accuracy"]["with_"]["value"])
    with (out / "results.csv").open(newline="") as file:
        results = {(row["figure"], row["arm"]): row for row in csv.DictReader(file)}
    assert float(results["seconds", "ratio"]["low"]) == pytest.approx(pooled["seconds"]["difference"]["low"])
    assert results["accuracy", "with"]["p"] == "NA"


def test_a_real_study_has_no_section_on_what_was_expected(simulated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(simulated, tmp_path / "study"))
    (folder / "parameters.json").unlink()
    assert main(["study", "analyse", str(folder), str(tmp_path / "out"), "--bootstrap", "20"]) == 0
    assert "never took place" not in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "recovered.json").exists()


def test_a_broken_study_is_refused_and_nothing_written(simulated: Path, tmp_path: Path, capsys) -> None:
    folder = Path(shutil.copytree(simulated, tmp_path / "study"))
    text = (folder / "readings.csv").read_text()
    (folder / "readings.csv").write_text(text.replace(",without,", ",neither,", 1))
    assert main(["study", "analyse", str(folder), str(tmp_path / "out")]) == 2
    assert "readings.csv line 2, column arm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["study", "analyse", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2


def test_power_prints_and_writes_its_table(simulated: Path, tmp_path: Path, capsys) -> None:
    written = tmp_path / "power.json"
    assert main(["study", "power", "--readers", "5,9", "--cases", "50,90", "--json", str(written)]) == 0
    found = json.loads(written.read_text())
    assert (found["readers"], found["cases"]) == ([5, 9], [50, 90])
    assert f"{found['power'][1][0]:.2f}" in capsys.readouterr().out
    assert main(["study", "power", "--pilot", str(simulated)]) == 0
    assert main(["study", "power", "--correlation", "0.99"]) == 2
    assert "cannot correlate" in capsys.readouterr().err


def test_coverage_is_written(tmp_path: Path) -> None:
    written = tmp_path / "coverage.json"
    assert main(["study", "coverage", str(written), "--studies", "5", "--cases", "12"]) == 0
    found = json.loads(written.read_text())
    assert found["studies"] == 5
    assert 0 <= found["inside"]["accuracy, difference"] <= 1
