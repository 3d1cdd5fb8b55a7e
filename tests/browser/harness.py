"""A real server with the shipped models, and a real Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.processes import kill_tree

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = 3


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a service that keeps its state and its log in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "BENTOML_DO_NOT_TRACK": "True",
        "RADIOLUCENT_JOBS_DATABASE": f"sqlite:///{folder}/jobs.db",
        "RADIOLUCENT_STUDY_FOLDER": str(folder / "studies"),
        "RADIOLUCENT_READER_STUDIES": f"sqlite:///{folder}/reader-studies.db",
        "RADIOLUCENT_SITE_KEY": str(folder / "site.key"),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Radiolucent", "--host", "127.0.0.1"]
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/readyz", log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            kill_tree(process.pid, signal.SIGINT, 30)
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(360):
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
        time.sleep(0.25)
    raise TimeoutError(log.read_text())


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("Chromium is not installed: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Browser, address: str, width: int = 1440, height: int = 900, scheme: str = "dark") -> Page:
    """A page in a context of its own, at the reading page."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.goto(address)
    page.locator(".models li").first.wait_for()
    return page


def load_examples(page: Page) -> None:
    """All of them, answered, the first one open."""
    page.click("#empty-examples")
    page.locator(".case-found.ready").nth(EXAMPLES - 1).wait_for()
    page.locator(".case", has_text="MNI152").click()
