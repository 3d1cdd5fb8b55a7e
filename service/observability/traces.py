"""Spans to an OpenTelemetry collector: one for each request, one for each of its stages; off unless one is configured.

Configured by the standard's environment variables: OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) turns traces
on, OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none off again; OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_BSP_* and OTEL_EXPORTER_OTLP_* are read by OpenTelemetry itself.
Attributes are names of ours and counts: no path, no query, no file name. Of the caller's headers only W3C `traceparent`
counts, which is numbers: `tracestate` and baggage are free text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

from service.observability.current import current

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_tracer: Tracer | None = None


def set_up_traces(version: str) -> Callable[[], None]:
    """Turn traces on where the environment says so; returns what sends the last spans when the service ends.

    Raises:
        RuntimeError: an endpoint is configured, but the exporter is not installed, or the protocol is not HTTP.
    """
    global _tracer
    if not _wanted():
        return lambda: None
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise RuntimeError(f"traces are sent as http/protobuf, not as {protocol}: see {' and '.join(_PROTOCOLS)}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise RuntimeError(
            f"{_ENDPOINTS[0]} is set, but the exporter is not installed: pip install 'radiolucent[traces]'"
        ) from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "radiolucent")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": version}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("radiolucent", version)
    return provider.shutdown


def _wanted() -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    none = os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return any(os.environ.get(name) for name in _ENDPOINTS) and not disabled and not none


def begin_request(headers: Iterable[tuple[bytes, bytes]]) -> Span | None:
    """The span of a request, a child of the caller's where its headers name one; None where traces are off."""
    if _tracer is None:
        return None
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind

    carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name == b"traceparent"}
    return _tracer.start_span("request", context=propagate.extract(carrier), kind=SpanKind.SERVER)


def end_request(span: Span, method: str, route: str, status: int | None) -> None:
    """Name the span after its route, as OpenTelemetry's conventions for HTTP have it, and send it."""
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()


def add_span(name: str, start: float, end: float, attributes: dict[str, str | int]) -> None:
    """A stage of the current request that lasted from `start` to `end` (`time.perf_counter`)."""
    request = current()
    if _tracer is None or request is None or request.span is None:
        return
    from opentelemetry.trace import set_span_in_context

    epoch = time_ns() - int(perf_counter() * 1e9)
    context = set_span_in_context(request.span)
    span = _tracer.start_span(name, context, attributes=attributes, start_time=epoch + int(start * 1e9))
    span.end(epoch + int(end * 1e9))
