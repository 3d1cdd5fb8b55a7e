"""Rules, alerts and dashboard: they parse, they do what they say, and they name metrics that the service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.observability import metrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing")


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, object]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    assert len(files) == 2
    return [rule for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, object]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, object]:
    return json.loads((GRAFANA / "dashboards" / "radiolucent.json").read_text())


def panels() -> list[str]:
    """Every expression of the dashboard, with Grafana's variables replaced as Grafana does."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [e.replace("$__rate_interval", "1m").replace("$model", ".*").replace("$method", ".*") for e in found]


def series() -> set[str]:
    """Names of the series that the service's metrics are scraped as."""
    names = set[str]()
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric.describe()[0].name
            endings = ["_total"] if isinstance(metric, Counter) else [""]
            names |= {name + e for e in (["_bucket", "_sum", "_count"] if isinstance(metric, Histogram) else endings)}
    return names


def unknown(expressions: list[str], known: set[str]) -> set[str]:
    named = {name for e in expressions for name in re.findall(r"[\w:]*radiolucent_[\w:]+", e)}
    assert named
    return named - known


@needs_promtool
def test_prometheus_accepts_configuration_and_rules():
    assert "2 rule files found" in promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
def test_rules_and_alerts_do_what_they_say():
    promtool("test", "rules", str(PROMETHEUS / "tests.yml"))


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
    tested = set(re.findall(r"Radiolucent\w+", (PROMETHEUS / "tests.yml").read_text()))
    assert sections <= tested
    for alert in alerts():
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbook.md#{alert['alert']}".lower())


def test_grafana_finds_datasource_and_dashboards():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/radiolucent.yml").read_text())["providers"]
    shown = dashboard()
    assert {panel["datasource"]["uid"] for panel in shown["panels"]} == {source["uid"]}
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert len({panel["id"] for panel in shown["panels"]}) == len(shown["panels"]) > 10
    for panel in shown["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
