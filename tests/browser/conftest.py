from __future__ import annotations

import pytest

from tests.browser.harness import chromium, load_examples, open_page, served


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched():
    """What went wrong in the browser, and whom it asked; empty or our own host at the end of every test."""
    return {"errors": [], "hosts": set()}


@pytest.fixture
def open_at(browser, address, watched):
    pages = []

    def opened(**options):
        page = open_page(browser, address, **options)
        page.on("console", lambda message: watched["errors"].append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: watched["errors"].append(str(error)))
        page.on("request", lambda request: watched["hosts"].add(request.url.split("/")[2] or request.url[:5]))
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    own = {address.split("/")[2]}
    assert {host for host in watched["hosts"] if not host.startswith(("blob:", "data:"))} <= own
    expected = [error for error in watched["errors"] if "Failed to load resource" not in error]  # refusals, tested
    assert not expected


@pytest.fixture
def page(open_at):
    return open_at()


@pytest.fixture
def examples(page):
    load_examples(page)
    return page
