from __future__ import annotations

import pytest

from loadtests.check import THRESHOLDS, Row, main, read_rows
from loadtests.payloads import uploads

HEADER = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Requests/s,Failures/s,95%"
GOOD = [
    "GET,models,8,0,5,5,0.1,0,9",
    "POST,predict 8 brain,40,0,400,410,2.0,0,700",
    "POST,explain 8 brain,40,0,420,430,1.9,0,720",
    ",Aggregated,88,0,400,400,4.0,0,700",
]


def report(tmp_path, lines):
    (tmp_path / "load_stats.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return tmp_path / "load"


def test_a_good_run_passes_and_says_what_explaining_costs(tmp_path, capsys):
    assert main([str(report(tmp_path, GOOD))]) == 0
    assert "explain takes 1.05 times predict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("POST,explain 8 brain,40,1,420,430,1.9,0,720", "1 of 88 requests failed"),
        ("POST,explain 8 brain,40,0,420,430,1.9,0,9000", "95 % within 9000 ms"),
        ("POST,explain 8 brain,40,0,N/A,430,1.9,0,N/A", "95 % within nan ms"),
    ],
)
def test_a_missed_threshold_is_named(tmp_path, capsys, line, message):
    assert main([str(report(tmp_path, [*GOOD[:2], line]))]) == 1
    assert message in capsys.readouterr().err


def test_hardly_any_requests_prove_nothing(tmp_path, capsys):
    assert main([str(report(tmp_path, GOOD[:1]))]) == 1
    assert "too few" in capsys.readouterr().err


def test_no_report_is_status_two(tmp_path, capsys):
    assert main([str(tmp_path / "load")]) == 2
    assert "load_stats.csv" in capsys.readouterr().err


def test_rows_leave_out_the_sum(tmp_path):
    rows = read_rows(report(tmp_path, GOOD))
    assert [row.name for row in rows] == ["models", "predict 8 brain", "explain 8 brain"]
    assert rows[1] == Row("predict 8 brain", requests=40, failures=0, median=400, p95=700, per_second=2.0)
    assert (rows[1].endpoint, rows[1].images, rows[0].images) == ("predict", 8, 0)


def test_shipped_thresholds_allow_no_failure():
    assert "failure_ratio = 0.0" in THRESHOLDS.read_text()


def test_payloads_are_eight_different_files_for_each_modality():
    for files in uploads().values():
        assert len({file.content for file in files}) == len({file.name for file in files}) == 8
        assert all(file.content.startswith(b"\x89PNG") for file in files)
