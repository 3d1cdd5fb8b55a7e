"""Logs, spans and metrics of the real service, which is sent what must not appear in any of them."""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread

import httpx
import numpy as np
import pytest
from bright import SIDE, png, write_bundle_into
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from serving import Service
from spots import write_spots_into

from tests.dicom_writers import classic_mr, saved
from tests.processes import free_port

pytestmark = pytest.mark.server

SECRETS = ("mustermann", "19550101")
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST_ID = str(uuid.UUID(int=77))


@dataclass
class Collector:
    """An OTLP/HTTP receiver; keeps what it was sent."""

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Span]:
        groups = [group for request in self.requests for group in request.resource_spans]
        return [span for group in groups for scope in group.scope_spans for span in scope.spans]

    def trace(self, number: str, spans: int) -> list[Span]:
        """All spans of a trace, which are so many."""
        end = time.monotonic() + 60
        found: list[Span] = []
        while len(found) < spans and time.monotonic() < end:
            found = [span for span in self.spans if span.trace_id.hex() == number]
            time.sleep(0.1)
        assert len(found) == spans, [span.name for span in found]
        return found


@dataclass
class Observed:
    client: httpx.Client
    service: Service
    collector: Collector

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.service.log.read_text().split("\n")[:-1]]

    def line_of(self, answer: httpx.Response) -> dict[str, object]:
        """The access line of an answer; it is written once the answer is sent."""
        asked = ("radiolucent.access", answer.headers["x-request-id"])
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = [line for line in self.lines() if (line["logger"], line.get("request_id")) == asked]
            if found:
                (line,) = found
                return line
            time.sleep(0.05)
        raise AssertionError(asked)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def observed(tmp_path_factory, collector) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    write_bundle_into(folder / "models", "bright")
    write_spots_into(folder / "models", "spots")
    settings = {
        "RADIOLUCENT_MODELS": str(folder / "models"),
        "RADIOLUCENT_LOG_FORMAT": "json",
        "XDG_STATE_HOME": str(folder / "state"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    service = Service(free_port(), folder / "log.txt", settings)
    client = service.start()
    yield Observed(client, service, collector)
    service.stop()


def upload(name: str = "a.png", content: bytes | None = None) -> tuple[str, tuple[str, bytes]]:
    return ("images", (name, content or png(np.full((SIDE, SIDE), 200, np.uint8))))


def hostile_dicom() -> bytes:
    """A name in every place that pydicom or we might quote: broken values, an unknown character set, a damaged end."""
    ds = classic_mr([np.full((SIDE, SIDE), 90, np.uint8)], "hostile")[0]
    ds.PatientName, ds.PatientBirthDate, ds.SpecificCharacterSet = "Mustermann^Max", "19550101", "ISO_IR 100"
    ds.RescaleIntercept, ds.RescaleSlope = "12345678.5432101", "1"
    ds.add_new(0x00111010, "LO", "Mustermann 19550101")
    content = saved(ds)
    for old, new in ((b"12345678.5432101", b"MustermannMax  1"), (b"ISO_IR 100", b"MUSTERMANN")):
        assert old in content and len(old) == len(new)
        content = content.replace(old, new)
    return content


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def test_nothing_that_a_caller_sends_is_written_anywhere(observed):
    client = observed.client
    texts = {"traceparent": CALLER.replace("0af7", "0af9"), "tracestate": "mustermann=19550101"}
    texts |= {"baggage": "patient=mustermann", "User-Agent": "Mustermann"}
    named = "Mustermann^Max 19550101.dcm"
    for file in (upload(named), upload(named, hostile_dicom()), upload(named, hostile_dicom()[:900])):
        for path in ("/v1/predict", "/v1/explain"):
            assert client.post(path, data={"model": "bright"}, files=[file], headers=texts).status_code == 200
        client.post("/v1/studies", files=[("files", file[1])])
    for data in ({"model": "Mustermann"}, {"model": "bright", "target": "Mustermann", "19550101": "Mustermann"}):
        assert client.post("/v1/explain", data=data, files=[upload()]).status_code in (404, 422)
    for path in ("/Mustermann", "/v1/jobs/Mustermann", "/v1/Mustermann%5EMax?born=19550101", "/page/Mustermann.js"):
        assert client.get(path, headers=texts | {"X-Request-ID": "Mustermann"}).status_code == 404
    assert client.get("/v1/jobs/Mustermann?born=19550101", headers=texts).status_code == 422
    assert client.request("DELETE", "/v1/models?patient=Mustermann").status_code == 405
    port = int(observed.service.address.rpartition(":")[2])
    assert b"400" in raw(port, b"GET /Mustermann HTTP/9.x\r\n\r\n")
    assert b"400" in raw(port, b"MUSTERMANN /19550101 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.5)
    client.get("/metrics")
    metrics = client.get("/metrics").text
    log = observed.service.log.read_text()
    assert len(observed.collector.spans) > 10
    for text in (metrics, log, *(str(request) for request in observed.collector.requests)):
        for secret in SECRETS:
            assert secret not in text.lower()
    routes = set(re.findall(r'radiolucent_request_seconds_count{route="([^"]*)"', metrics))
    assert {"/v1/predict", "/v1/explain", "/v1/jobs/{job}", "/page/*", "/metrics", "unmatched"} <= routes
    assert "bentoml_" not in metrics


def test_every_line_is_json_and_answers_have_one(observed):
    answer = observed.client.post("/v1/explain", data={"model": "bright"}, files=[upload()])
    for line in observed.lines():
        assert {"time", "level", "logger", "message"} <= line.keys()
    line = observed.line_of(answer)
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/explain", 200)
    assert line["bytes"] == len(answer.content)
    assert 0 < line["ms"] < 30_000
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    asked = observed.client.post("/v1/explain?a=b", data={"model": "bright"}, files=[upload()])
    assert observed.line_of(asked)["route"] == "/v1/explain"  # without what was asked in the address
    assert {"radiolucent", "radiolucent.access", "bentoml.serve"} <= {line["logger"] for line in observed.lines()}


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/v1/models", "/v1/reading"])
def test_what_has_a_route_is_logged_by_it(observed, path):
    assert observed.line_of(observed.client.get(path))["route"] == path


def test_probes_and_scrapes_are_not_in_the_log(observed):
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        answer = observed.client.get(path)
        assert answer.status_code == 200
        assert uuid.UUID(answer.headers["x-request-id"])
        assert answer.headers["x-request-id"] not in observed.service.log.read_text()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (REQUEST_ID, True),
        (uuid.UUID(int=78).hex, True),
        ("4711", False),
        ("a" * 33, False),
        ("Mueller-19550101", False),
    ],
)
def test_only_a_uuid_is_taken_for_the_request_id(observed, sent, kept):
    answer = observed.client.get("/v1/models", headers={"X-Request-ID": sent})
    assert (answer.headers["x-request-id"] == sent) is kept
    assert observed.line_of(answer)["route"] == "/v1/models"


@pytest.mark.parametrize("path", ["/", "/study", "/docs"])
def test_pages_are_told_apart(observed, path):
    assert observed.line_of(observed.client.get(path))["route"] == path


def test_problems_carry_the_id_of_the_answer(observed):
    for path in ("/v1/jobs/none", "/nothing"):
        answer = observed.client.get(path)
        assert answer.json()["request_id"] == answer.headers["x-request-id"] == observed.line_of(answer)["request_id"]


def test_a_request_is_one_trace_with_a_span_for_each_stage(observed):
    answer = observed.client.post(
        "/v1/explain", data={"model": "bright"}, files=[upload()], headers={"traceparent": CALLER}
    )
    spans = observed.collector.trace(CALLER.split("-")[1], 7)
    (root,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert root.name == "POST /v1/explain"
    assert root.parent_span_id.hex() == CALLER.split("-")[2]
    stages = {span.name: span for span in spans if span is not root}
    assert set(stages) == {"receive", "decode", "queue", "inference", "explanation", "encode"}
    order = [stages[name] for name in ("receive", "decode", "queue", "inference", "explanation", "encode")]
    for span, after in zip(order, [*order[1:], None], strict=True):
        assert span.parent_span_id == root.span_id
        assert root.start_time_unix_nano - 1e6 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= (after.start_time_unix_nano if after else root.end_time_unix_nano) + 1e6
        assert {a.key: a.value.string_value for a in span.attributes} == {
            "radiolucent.model": "bright",
            "radiolucent.method": "gradcam",
        }
    held = {a.key for a in root.attributes}
    assert held == {"http.request.method", "http.route", "http.response.status_code"}
    assert observed.line_of(answer)["trace_id"] == root.trace_id.hex()
    resource = observed.collector.requests[0].resource_spans[0].resource
    told = {a.key: a.value.string_value for a in resource.attributes}
    assert told["service.name"] == "radiolucent"
    assert told["deployment.environment.name"] == "test"


def test_an_outline_is_traced_too(observed):
    caller = CALLER.replace("0af7", "0af8")
    pixels = np.zeros((64, 64), np.uint8)
    pixels[8:24, 16:48] = 255
    files = [upload("b.png", png(pixels))]
    observed.client.post("/v1/segment", data={"model": "spots"}, files=files, headers={"traceparent": caller})
    names = {span.name for span in observed.collector.trace(caller.split("-")[1], 7)}
    assert names == {"POST /v1/segment", "receive", "decode", "queue", "inference", "outline", "encode"}


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one series; 0 where it is not there yet."""
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{key}="{wanted}"' in head for key, wanted in labels.items()):
            return float(value)
    return 0.0


def test_metrics_count_requests_predictions_and_waiting(observed):
    before = observed.client.get("/metrics").text
    answer = observed.client.post("/v1/predict", data={"model": "bright"}, files=[upload(), upload()])
    (label,) = {result["label"] for result in answer.json()["results"]}
    text = observed.client.get("/metrics").text

    def more(name: str, **labels: str) -> float:
        return sample(text, name, **labels) - sample(before, name, **labels)

    assert more("radiolucent_request_seconds_count", route="/v1/predict", status="2xx") == 1
    assert more("radiolucent_predictions_total", model="bright", label=label) == 2
    assert more("radiolucent_confidence_count", model="bright") == 2
    assert more("radiolucent_energy_count", model="bright") == 2
    assert more("radiolucent_queue_seconds_count", model="bright") == 2
    assert sample(text, "radiolucent_requests_in_flight") == 1  # the scrape itself
    assert 'radiolucent_predictions_total{label="middle",model="bright"}' in text  # there before the first


def test_a_study_is_in_the_metrics_and_the_trace_as_images_are(observed):
    before = observed.client.get("/metrics").text
    caller = CALLER.replace("0af7", "0afb")
    body = BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for number, ds in enumerate(classic_mr([np.full((SIDE, SIDE), 90, np.uint8)] * 3, "counted")):
            archive.writestr(str(number), saved(ds))
    headers = {"Content-Type": "application/zip", "traceparent": caller}
    answer = observed.client.post("/v1/studies?model=bright", content=body.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    text = observed.client.get("/metrics").text

    def more(name: str, **labels: str) -> float:
        return sample(text, name, **labels) - sample(before, name, **labels)

    assert more("radiolucent_images_total", model="bright", method="gradcam", outcome="ok") == 3
    assert more("radiolucent_queue_seconds_count", model="bright") == 3
    assert more("radiolucent_batch_images_sum", model="bright") == 3
    stages = {"decode", "queue", "inference", "explanation", "encode"}
    for stage in stages:
        assert more("radiolucent_stage_seconds_count", stage=stage, model="bright", method="gradcam") == 1
    names = {span.name for span in observed.collector.trace(caller.split("-")[1], 6)}
    assert names == {"POST /v1/studies", *stages}
