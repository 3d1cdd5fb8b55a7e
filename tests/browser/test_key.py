"""A service that asks for a key."""

from __future__ import annotations

import json

import pytest

from service.access.keys import make_key, write_keys
from tests.browser.harness import load_examples, served
from tests.browser.test_page import serious


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    key, record = make_key("reader", ("explain",), None, "")
    write_keys(folder / "keys.json", (record,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADIOLUCENT_KEYS", str(folder / "keys.json"))
        with served(folder) as address:
            yield address, key


def test_the_page_asks_for_a_key_and_forgets_it(browser, guarded):
    address, key = guarded
    page = browser.new_context().new_page()
    page.goto(address)
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.activeElement.id") == "key-value"
    assert not serious(page)
    page.keyboard.type("rl_wrong")
    page.keyboard.press("Enter")
    page.locator("#key-problem", has_text="A key or a token is needed").wait_for()
    page.fill("#key-value", key)
    page.keyboard.press("Enter")
    page.locator(".models li").first.wait_for()
    load_examples(page)
    assert key not in json.dumps(page.evaluate("({...localStorage, cookie: document.cookie, at: location.href})"))
    page.reload()
    page.locator(".models li").first.wait_for()
    page.click("#key-open")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    page.context.close()
