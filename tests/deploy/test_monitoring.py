"""Rules, alerts and dashboard: they parse, they do what they say, and they name metrics that the service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.dashboard import read_panels
from service import errors
from service.observability import metrics
from service.observability.gpu import GpuCollector

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "radiolucent.json"
TESTS = ("tests.yml", "tests-drift.yml")
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)


def promtool(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, object]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    assert len(files) == 3
    return [rule for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, object]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, object]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[str]:
    """Every expression of the dashboard, with Grafana's variables replaced as Grafana does."""
    return [target.expression for panel in read_panels(DASHBOARD, rate_interval="1m") for target in panel.targets]


def described() -> set[tuple[str, str, tuple[str, ...]]]:
    """Name, type and labels of every metric of the service."""
    ours = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    found = {(m.describe()[0].name, m.describe()[0].type, tuple(m._labelnames)) for m in ours}
    no_gpu = SimpleNamespace(nvmlDeviceGetCount=lambda: 0)
    return found | {(m.name, m.type, tuple(m._labelnames)) for m in GpuCollector(no_gpu).collect()}


def series() -> set[str]:
    """Names of the series that the service's metrics are scraped as."""
    names = set[str]()
    for name, kind, _ in described():
        names |= {name + ending for ending in ENDINGS[kind]}
    return names


def kinds(root: type[errors.RadiolucentError]) -> set[type[errors.RadiolucentError]]:
    return {root, *(leaf for child in root.__subclasses__() for leaf in kinds(child))}


def unknown(expressions: list[str], known: set[str]) -> set[str]:
    named = {name for e in expressions for name in re.findall(r"[\w:]*radiolucent_[\w:]+", e)}
    assert named
    return named - known


@needs_promtool
def test_prometheus_accepts_configuration_and_rules():
    assert "3 rule files found" in promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
@pytest.mark.parametrize("file", TESTS)
def test_rules_and_alerts_do_what_they_say(file):
    promtool("test", "rules", str(PROMETHEUS / file))


@needs_promtool
def test_every_expression_of_the_dashboard_parses(tmp_path):
    listed = [{"record": f"panel:expression:{i}", "expr": expr} for i, expr in enumerate(panels())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": listed}]}))
    assert f"{len(listed)} rules found" in promtool("check", "rules", str(path))


def test_rules_and_dashboard_name_only_what_exists():
    known = series() | {str(rule["record"]) for rule in rules() if "record" in rule}
    assert {"radiolucent_stage_seconds_bucket", "radiolucent_images_total"} <= known
    assert unknown([str(rule["expr"]) for rule in rules()], known) == set()
    assert unknown(panels(), known) == set()
    assert unknown(["rate(radiolucent_gone_total[5m])"], known) == {"radiolucent_gone_total"}


def test_every_alert_is_tested_and_has_its_section_in_the_runbook():
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    assert {str(alert["alert"]) for alert in alerts()} == sections
    tested = {name for file in TESTS for name in re.findall(r"Radiolucent\w+", (PROMETHEUS / file).read_text())}
    assert sections <= tested
    for alert in alerts():
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbook.md#{alert['alert']}".lower())


def test_grafana_finds_datasource_and_dashboards():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/radiolucent.yml").read_text())["providers"]
    shown = dashboard()
    drawn = [panel for panel in shown["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in drawn} == {source["uid"]}
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert len({panel["id"] for panel in shown["panels"]}) == len(shown["panels"]) > 10
    for panel in shown["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_documents_table_is_what_the_code_has():
    text = (ROOT / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(radiolucent_\w+)` \| (\w+) \| ([\w, ]*)\|", text, re.MULTILINE)
    found = {(name, kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert len(found) == len(rows) > 20
    assert found == described()


def test_durations_have_buckets_from_a_millisecond_to_a_minute():
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric.describe()[0].name.endswith("_seconds"):
            assert (metric._kwargs["buckets"][0], metric._kwargs["buckets"][-1]) == (0.001, 60.0)


def test_every_fault_that_is_not_the_callers_raises_the_alarm():
    (counted,) = [rule["expr"] for rule in rules() if rule.get("record") == "job:radiolucent_faults:rate5m"]
    pattern = re.search(r'kind=~"([^"]+)"', str(counted))
    assert pattern
    ours = {each.kind for each in kinds(errors.RadiolucentError) if each.status >= 500}
    overload_and_deadlines = {errors.Overloaded, errors.DeadlinePassed, errors.DeadlineTooShort, errors.Cancelled}
    at_start = {errors.RulesError, errors.AccessError, errors.DatabaseUnusable}  # there is no service then
    expected = ours - {each.kind for each in overload_and_deadlines | at_start}
    every = {each.kind for each in kinds(errors.RadiolucentError)} | {"audit", "http"}
    assert {kind for kind in every if re.fullmatch(pattern[1], kind)} == expected | {"audit"}
