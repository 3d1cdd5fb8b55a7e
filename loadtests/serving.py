"""The service that is measured: one that runs already, or one of our own."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

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


def add_key_option(parser: argparse.ArgumentParser) -> None:
    """`--key FILE`: a file, because the list of processes shows arguments to everybody."""
    words = f"file that holds the API key and nothing else (default: the environment's {KEY})"
    parser.add_argument("--key", type=Path, metavar="FILE", help=words)


def use_key(options: argparse.Namespace) -> None:
    """Put the key of `--key` where this process and Locust's find it; where it came from is forgotten.

    Raises:
        NothingMeasured: the file cannot be read, or is empty.
    """
    file: Path | None = vars(options).pop("key")
    if file is None:
        return
    try:
        key = file.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise NothingMeasured(f"the file of --key cannot be read: {type(error).__name__}") from None
    if not key:
        raise NothingMeasured("the file of --key is empty")
    os.environ[KEY] = key


def check_key(url: str, metrics: str) -> str:
    """Try the key before anything is measured with it.

    Args:
        url: of the service.
        metrics: URL of its metrics.

    Returns:
        What will be missing for want of a scope; empty where nothing is.

    Raises:
        NothingMeasured: the service answers no requests with this key, or without one.
    """
    status = requests.get(f"{url}/v1/models", headers=authorization(), timeout=30).status_code
    if status != requests.codes.ok:
        raise NothingMeasured(
            f"GET /v1/models: status {status}; a key of scope explain is wanted: --key FILE, or {KEY}"
            if status in (requests.codes.unauthorized, requests.codes.forbidden)
            else f"GET /v1/models: status {status}"
        )
    if requests.get(metrics, headers=authorization(), timeout=30).status_code == requests.codes.forbidden:
        return "the key lacks the scope metrics: stages and batches will not be in the report"
    return ""


def authorization() -> dict[str, str]:
    """Headers with the key of the environment, where there is one."""
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}
