"""What metrics, log lines and spans cost: CPU time of a request and of an image, beside the work itself.

    python -m benchmarks.observation_cost [--json FILE]

A request is one of `service.observability.requests.Observed` around an application that only answers, with the seven
observations that `POST /v1/explain` makes, a JSON line each, and Prometheus in multiprocess mode as BentoML has it.
With spans: made and queued, and sent only once the time is taken. `exposition` is a scrape's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.types import Receive, Scope, Send

from benchmarks.harness import Cell, machine, parser, save, show

_STAGES = {"decode": 0.001, "queue": 0.001, "inference": 0.01, "explanation": 0.001}


def microseconds(call: Callable[[], object], count: int) -> float:
    """CPU time of a call, the best of five series of so many."""
    call()
    series: list[float] = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(count):
            call()
        series.append((time.process_time() - start) / count)
    return 1e6 * min(series)


def requests(loop: asyncio.AbstractEventLoop) -> tuple[Callable[[], object], Callable[[], object]]:
    """One request to an application that only answers: without and with what is observed of it."""
    from service.observability.drift import observe_prediction
    from service.observability.requests import Observed
    from service.observability.stages import observe_received, observe_stages, stage

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        observe_received("m", "gradcam")
        observe_stages("m", "gradcam", time.perf_counter() - 1, _STAGES)
        observe_prediction("m", "a", 0.9, -3.0)
        with stage("encode", "m", "gradcam"):
            await bare(scope, receive, send)

    async def receive() -> dict[str, object]:
        return {}

    async def send(message: object) -> None:
        return None

    def scope() -> Scope:
        headers = [(b"host", b"a"), (b"content-type", b"multipart/form-data"), (b"user-agent", b"b")]
        return {"type": "http", "method": "POST", "path": "/v1/explain", "headers": headers}

    observed = Observed(told)
    return (
        lambda: loop.run_until_complete(bare(scope(), receive, send)),
        lambda: loop.run_until_complete(observed(scope(), receive, send)),
    )


class _Accept(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Takes spans and forgets them."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def collector() -> Generator[str, None, None]:
    """The address of something that takes spans over OTLP/HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accept)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def measured(count: int) -> list[dict[str, Cell]]:
    """The table's rows; Prometheus' folder and the spans' endpoint must be set in the environment."""
    from service.observability.drift import observe_prediction
    from service.observability.exposition import exposition
    from service.observability.logs import set_up_logs
    from service.observability.traces import set_up_traces

    set_up_logs("json")
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)  # noqa: S101 - set_up_logs has just made it
    with Path(os.devnull).open("w") as nowhere:
        handler.setStream(nowhere)
        loop = asyncio.new_event_loop()
        bare, observed = requests(loop)
        nothing = microseconds(bare, count)
        rows: list[dict[str, Cell]] = [{"what": "request, no spans", "us": microseconds(observed, count) - nothing}]
        send_the_rest = set_up_traces("0")
        rows.append({"what": "request, with spans", "us": microseconds(observed, count) - nothing})
        send_the_rest()
        image = microseconds(lambda: observe_prediction("m", "a", 0.9, -3.0), count)
        rows.append({"what": "further image of a request", "us": image})
        rows.append({"what": "exposition", "us": microseconds(exposition, 20)})
        loop.close()
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("observation_cost", __doc__)
    made.add_argument("--count", type=int, default=2000, help="calls in a series (default: %(default)s)")
    options = made.parse_args(arguments)
    with TemporaryDirectory() as folder, collector() as endpoint:
        os.environ |= {
            "PROMETHEUS_MULTIPROC_DIR": folder,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
            "OTEL_BSP_MAX_QUEUE_SIZE": "1000000",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1000000",
        }
        rows, where = measured(options.count), machine("cpu", 1)
        show("observation_cost: CPU time", rows, where)
        save(options, where, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
