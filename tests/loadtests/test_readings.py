"""What the server's own metrics say of a load, as a real HTTP server gives them."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests.scrape import Scraper, series_of, spent

COUNTED = """radiolucent_stage_seconds_sum{{stage="inference"}} {seconds}
radiolucent_batch_images_count {passes}
radiolucent_batch_images_sum {images}
"""


@pytest.fixture
def scraped():
    """Readings of a server whose metrics can be had at some times and not at others: `(seconds, passes)`, or None."""
    servers: list[ThreadingHTTPServer] = []

    def scrape(states):
        left = list(states)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(503 if state is None else 200)
                self.end_headers()
                if state is not None:
                    seconds, passes = state
                    self.wfile.write(COUNTED.format(seconds=seconds, passes=passes, images=2 * passes).encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Scraper(f"http://127.0.0.1:{server.server_port}/metrics", pid=0, every_s=0.01) as scraper:
            until = time.monotonic() + 30
            while len(scraper.readings) < len(states):
                assert time.monotonic() < until
                time.sleep(0.01)
        return scraper

    yield scrape
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("first", [[], [None], [None, None]])
@pytest.mark.parametrize("later", [[(1007.0, 505)], [None, (1007.0, 505)]])
def test_a_server_that_ran_before_is_charged_what_the_load_cost_alone(scraped, first, later):
    scraper = scraped([*first, (1000.0, 500), *later])
    assert scraper.missed == first.count(None) + later.count(None)
    assert spent(scraper.readings) == {"inference": pytest.approx(7.0)}
    columns = series_of(scraper.readings)
    assert set(columns["batch"]) <= {None, 2.0}
    seconds = [b.at - a.at for a, b in zip(scraper.readings, scraper.readings[1:], strict=False)]
    total = sum(rate * lasted for rate, lasted in zip(columns["stages"]["inference"], seconds, strict=True))
    assert total == pytest.approx(7.0, rel=0.01)
