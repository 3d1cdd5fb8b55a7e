"""The service that is measured: one that runs already, or one of our own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.served import ready, started
from loadtests.scrape import LOCAL, listening_on

KEY = "RADIOLUCENT_LOAD_KEY"


class NothingMeasured(RuntimeError):
    """Locust or the service did not do its part."""


@contextmanager
def target(url: str) -> Generator[tuple[str, int], None, None]:
    """URL and process id (0: unknown) of a service: the one at the URL, or one with empty databases of its own.

    Raises:
        NothingMeasured: none is ready at a URL of another machine, or none can be started.
    """
    if ready(url):
        yield url.rstrip("/"), listening_on(url)
        return
    if urlsplit(url).hostname not in LOCAL:
        raise NothingMeasured(f"no service is ready at {url}")
    with tempfile.TemporaryDirectory(prefix="radiolucent-load-") as folder:
        settings = {
            "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{folder}/jobs.sqlite",
            "RADIOLUCENT_READER_STUDIES": f"sqlite:///{folder}/readings.sqlite",
            "RADIOLUCENT_STUDY_FOLDER": f"{folder}/studies",
            "RADIOLUCENT_SITE_KEY": f"{folder}/site.key",
        }
        try:
            with started(settings) as served:
                yield served.url, served.pid
        except RuntimeError as error:
            raise NothingMeasured(str(error)) from error


def authorization() -> dict[str, str]:
    """Headers with the key of the environment, where there is one."""
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}
