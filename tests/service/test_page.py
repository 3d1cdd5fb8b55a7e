from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from browser import colour_tables
from starlette.testclient import TestClient

from service.api import make_api
from service.page_routes import FOLDER
from service.pipeline import Pipeline
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".html": "text/html",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    api = make_api("test")
    api.state.pipeline = Pipeline(Settings(models=tmp_path_factory.mktemp("models"), threads=1, device="cpu"))
    with TestClient(api, raise_server_exceptions=False) as client:
        yield client


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_browser_may_ask_no_other_host(client):
    headers = client.get("/").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_nothing_in_the_page_is_inline_and_all_that_it_names_is_served(client):
    elements = Elements(client.get("/").text).found
    assert not [tag for tag, _ in elements if tag == "style"]
    for tag, attributes in elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert tag != "script" or attributes["src"]
        address = attributes.get("src") or (attributes.get("href") if tag != "a" else None)
        assert address is None or client.get(f"/{address}").status_code == 200


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_as_what_it_is_and_names_no_other_host(client, path):
    answer = client.get(f"/page/{path.relative_to(FOLDER)}")
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[path.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    if path.suffix != ".png":
        hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text())) - {"http://www.w3.org"}
        assert not hosts


def test_modules_import_what_there_is():
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r'(?:from|import\() ?"\./([^"]+)"', path.read_text()):
            assert (FOLDER / name).is_file(), (path.name, name)


@pytest.mark.parametrize("address", ["/", "/page/page.js"])
def test_an_unchanged_file_is_not_sent_again(client, address):
    first = client.get(address)
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["nothing.js", "%2e%2e/api.py", "..%2fapi.py", "examples"])
def test_what_is_not_of_the_page_is_a_problem(client, path):
    answer = client.get(f"/page/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_wheel_and_bento_carry_every_file():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["service"]
    packed = {path for pattern in patterns for path in (ROOT / "service").glob(pattern)}
    assert set(FILES) <= packed
    assert "service/page/**" in yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]


def test_colours_are_those_of_matplotlib():
    assert colour_tables.TABLE.read_text() == colour_tables.source()


@pytest.mark.parametrize("name", ["mni152-slice.png", "oct-phantom.png"])
def test_examples_are_the_documented_images(name):
    assert (FOLDER / "examples" / name).read_bytes() == (ROOT / "docs" / "images" / name).read_bytes()
