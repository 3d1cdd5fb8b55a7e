"""The picture of the dashboard is drawn from whatever Prometheus answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from benchmarks.dashboard import Target, asked, draw, named, read_panels, save


@pytest.fixture
def answering() -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """Address of something that answers every query as Prometheus does, and the queries."""
    queries: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            queries.append(parse_qs(urlsplit(self.path).query))
            series = [
                {"metric": {"stage": name}, "values": [[t, value] for t in (0, 60, 120)]}
                for name, value in (("queue", "0.25"), ("decode", "NaN"), ("encode", "3"))
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "success", "data": {"result": series}}).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", queries
    server.shutdown()
    thread.join()
    server.server_close()


def test_variables_and_legends_are_replaced_as_grafana_does():
    targets = [target for panel in read_panels() for target in panel.targets]
    assert len(targets) > 20
    assert not [target for target in targets if "$" in target.expression]
    assert any("[30s]" in target.expression for target in targets)
    assert named("{{stage}} of {{model}}", {"stage": "queue"}) == "queue of"


def test_series_without_numbers_are_left_out(answering):
    url, queries = answering
    lines = asked(url, 0, 120, 60)(Target("up", "{{stage}}"))
    assert [(line.name, line.values) for line in lines] == [("queue", [0.25] * 3), ("encode", [3.0] * 3)]
    assert queries[0] == {"query": ["up"], "start": ["0"], "end": ["120"], "step": ["60"]}


def test_every_panel_is_asked_for_and_drawn(answering, tmp_path):
    url, queries = answering
    panels = read_panels()
    save(url, tmp_path / "picture.png", 2)
    assert {query["query"][0] for query in queries} == {t.expression for panel in panels for t in panel.targets}
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size[0] > 1000
        assert np.asarray(picture.convert("L")).std() > 10
    figure = draw(panels, lambda target: [], "nothing")
    plotted = [panel for panel in panels if panel.kind != "row"]
    empty = [text for text in figure.texts if text.get_text() == "no data"]
    assert len(empty) == len(plotted)
    assert not figure.axes
    out = BytesIO()
    figure.savefig(out, format="png", dpi=20)
