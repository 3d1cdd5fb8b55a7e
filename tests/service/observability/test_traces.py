from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.observability import traces

ROOT = Path(__file__).resolve().parents[3]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def start(environment: dict[str, str], before: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        f"{before}\nimport sys\nfrom service.observability.traces import begin_request, set_up_traces\n"
        "set_up_traces('1')()\nprint(begin_request([]) is not None, 'opentelemetry.sdk' in sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
        ({ENDPOINT: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_sdk_is_loaded_only_where_traces_are_wanted(environment, on):
    assert start(environment).stdout == f"{on} {on}\n"


def test_a_missing_exporter_says_how_to_get_it():
    done = start({ENDPOINT: "http://127.0.0.1:9"}, "import sys; sys.modules['opentelemetry.exporter'] = None")
    assert done.returncode == 1
    assert "pip install 'radiolucent[traces]'" in done.stderr


def test_grpc_is_refused():
    done = start({ENDPOINT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert done.returncode == 1
    assert "not as grpc" in done.stderr


def test_without_a_request_there_is_no_span():
    traces.add_span("decode", 0.0, 1.0, {})
    assert traces.begin_request([]) is None
