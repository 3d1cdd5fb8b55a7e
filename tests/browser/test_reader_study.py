"""The readers' page in a real Chromium, against the real service, which is killed in the middle of a reading."""

from __future__ import annotations

import csv
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bright import SIDE, png, write_bundle_into
from playwright.sync_api import Page, expect
from serving import ROOT, Service

from service.reader_study.__main__ import main
from tests.processes import free_port

ITEMS = ("clear", "plausible", "relevant", "useful", "trust")
TRUTHS = ["dark", "bright", "dark", "bright", "dark", "bright"]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    write_bundle_into(folder / "models", "bright")
    settings = {
        "RADIOLUCENT_MODELS": str(folder / "models"),
        "RADIOLUCENT_READER_STUDIES": f"sqlite:///{folder / 'studies.sqlite'}",
        "RADIOLUCENT_DEVICE": "cpu",
        "XDG_STATE_HOME": str(folder / "state"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        service = Service(free_port(), folder / "log.txt")
        service.start()
        yield service
        service.stop()


@pytest.fixture(scope="module")
def links(service, tmp_path_factory) -> Iterator[str]:
    """Of the readers of one study, with two training cases and four others: one for each test."""
    folder = tmp_path_factory.mktemp("study") / "trial"
    folder.mkdir()
    lines = ["file,truth,training"]
    for number, truth in enumerate(TRUTHS):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(png(pixels))
        lines.append(f"{number}.png,{truth},{'yes' if number < 2 else 'no'}")
    (folder / "cases.csv").write_text("\n".join(lines))
    command = ["create", str(folder), "--model", "bright", "--readers", "20", "--address", service.address]
    done = subprocess.run(
        [sys.executable, "-m", "service.reader_study", *command], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return iter(re.findall(r"http\S+#\S+", done.stdout))


@pytest.fixture
def link(links) -> str:
    return next(links)


@pytest.fixture
def page(browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    context.close()
    assert faults == []


def fill(page: Page, *, diagnosis: str = "Dark", sure: int = 60, rating: int = 4) -> None:
    page.get_by_role("radio", name=diagnosis, exact=True).check()
    page.get_by_role("spinbutton", name="Confidence, 0 to 100").fill(str(sure))
    if page.locator("#ratings").is_visible():
        for item in ITEMS:
            page.get_by_role("radiogroup", name=re.compile(item, re.I)).get_by_text(str(rating), exact=True).click()


def save(page: Page) -> None:
    page.get_by_role("button", name="Save and go on").click()


def begin(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("button", name=re.compile("Begin|Go on")).click()
    expect(page.locator("#reading")).to_be_visible()


def where(page: Page) -> str:
    return page.locator("#where").inner_text()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def exported(page: Page, tmp_path: Path) -> list[dict[str, str]]:
    """What the reader on the page has answered."""
    reader = page.evaluate(
        """async () => (await (await fetch("/v1/reading", { headers: {
          Authorization: `Bearer ${sessionStorage.getItem("radiolucent-reader-code")}` } })).json()).reader"""
    )
    assert main(["export", "trial", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "readings.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["reader"] == reader]


def test_from_the_link_to_the_washout(page, link, tmp_path):
    page.goto(link)
    expect(
        page.get_by_text("R01, there are 12 cases to read, in two parts of 6 with 28 days between them.")
    ).to_be_visible()
    assert page.url.endswith("/study")  # the code is not in the address any more
    page.get_by_role("button", name="Begin").click()
    for number in range(1, 7):
        expect(page.locator("#where")).to_contain_text(f"Part 1, case {number} of 6")
        training = number <= 2
        assert page.locator("#training").is_visible() is training
        explained = page.locator("#ratings").is_visible()
        assert page.locator("#model").is_visible() is page.locator("#heat").is_visible() is explained
        assert ("The model says" in page.content() and page.locator("#model").is_visible()) is explained
        if number == 3:
            save(page)
            expect(page.get_by_role("alert").filter(has_text="Still missing: your diagnosis, how sure")).to_be_visible()
            assert page.evaluate("document.activeElement.name") == "diagnosis"
        fill(page, rating=3)
        save(page)
        if training:
            expect(page.get_by_role("heading", name="The truth")).to_be_visible()
            expect(page.locator("#feedback-text")).to_have_text(re.compile(r"^(Dark, as|Bright\. Your)"))
            page.get_by_role("button", name="Next case").click()
    expect(page.get_by_role("heading", name="The first part is complete")).to_be_visible()
    expect(page.locator("#washout-text")).to_have_text(re.compile(r"opens on \w+day,? \d+ \w+ \d{4} at \d\d:\d\d"))
    assert serious(page) == []
    page.reload()
    expect(page.get_by_role("heading", name="The first part is complete")).to_be_visible()
    rows = exported(page, tmp_path)
    assert [row["diagnosis"] for row in rows] == ["dark"] * 6
    assert {row["clear"] for row in rows if row["arm"] == "with"} == {"3"}
    assert all(0 < float(row["seconds"]) < 60 for row in rows)


def test_a_case_is_read_with_the_keyboard_alone(page, link):
    begin(page, link)
    page.locator("[name=diagnosis]").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")  # the second class
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "confidence-slider"
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "100"
    if page.locator("#ratings").is_visible():
        for _ in ITEMS:
            page.keyboard.press("Tab")
            page.keyboard.press("Space")
            page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.type("seen")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="The truth")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "go-on"
    page.keyboard.press("Enter")
    expect(page.locator("#where")).to_contain_text("case 2 of 6")


def test_a_wrong_code_is_said_and_can_be_put_right(page, service, link):
    page.goto(f"{service.address}/study")
    code = link.split("#")[1]
    page.get_by_role("textbox", name="Code").fill(code[:-1] + ("0" if code[-1] != "0" else "1"))
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("This code opens no study")
    assert serious(page) == []
    page.get_by_role("textbox", name="Code").fill(code.upper().replace("-", " "))
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    page.get_by_role("button", name="Leave").click()
    expect(page.get_by_role("textbox", name="Code")).to_be_visible()
    page.reload()
    expect(page.get_by_role("textbox", name="Code")).to_be_visible()  # the code is forgotten


def test_a_service_killed_in_the_middle_of_a_case_loses_nothing(page, service, link, tmp_path):
    begin(page, link)
    fill(page, diagnosis="Bright", sure=35)
    page.locator("#comment").fill("kept by the service")
    expect(page.locator("#kept")).to_have_text("Saved")
    service.stop(signal.SIGKILL)
    page.locator("#comment").fill("kept by the service; typed after its death")
    expect(page.locator("#kept")).to_have_text("Not saved yet; trying again")
    save(page)
    expect(page.locator("#trouble")).to_contain_text("The service does not answer")
    service.start()
    expect(page.get_by_role("heading", name="The truth")).to_be_visible(timeout=20_000)
    expect(page.locator("#trouble")).to_be_hidden()
    (row,) = exported(page, tmp_path)
    assert (row["diagnosis"], row["confidence"]) == ("bright", "35")
    assert row["comment"] == "kept by the service; typed after its death"


def test_service_and_browser_may_both_die(browser, service, link, tmp_path):
    profile = tmp_path / "profile"
    options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
    first = browser.browser_type.launch_persistent_context(profile, **options)
    page = first.pages[0]
    begin(page, link)
    place = where(page)
    fill(page, sure=20)
    expect(page.locator("#kept")).to_have_text("Saved")
    service.stop(signal.SIGKILL)
    page.locator("#comment").fill("the last words")
    expect(page.locator("#kept")).to_have_text("Not saved yet; trying again")
    first.close()
    service.start()
    second = browser.browser_type.launch_persistent_context(profile, **options)
    page = second.pages[0]
    begin(page, link)
    assert where(page) == place
    expect(page.locator("#comment")).to_have_value("the last words")
    expect(page.locator("#confidence")).to_have_value("20")
    expect(page.get_by_role("radio", name="Dark", exact=True)).to_be_checked()
    expect(page.locator("#kept")).to_have_text("Saved")
    second.close()


def test_another_browser_goes_on_with_the_draft_of_the_service(browser, page, link):
    begin(page, link)
    page.locator("#comment").fill("begun elsewhere")
    expect(page.locator("#kept")).to_have_text("Saved")
    other = browser.new_context()  # nothing of the first one's storage
    elsewhere = other.new_page()
    begin(elsewhere, link)
    expect(elsewhere.locator("#comment")).to_have_value("begun elsewhere")
    other.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everybody_can_use_it(page, link, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(link)
    expect(page.get_by_role("button", name="Begin")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Begin").click()
    for _ in range(2):  # the training cases: one in each arm
        expect(page.get_by_role("button", name="Save and go on")).to_be_enabled()
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        fill(page)
        save(page)
        expect(page.get_by_role("heading", name="The truth")).to_be_visible()
        assert serious(page) == []
        page.get_by_role("button", name="Next case").click()


def test_the_clock_counts_while_somebody_is_there(page, service):
    page.goto(f"{service.address}/study")
    counted = page.evaluate(
        """async () => {
          const { ActiveClock } = await import("/study/clock.js");
          let now = 0, state = "visible";
          Object.defineProperty(document, "visibilityState", { get: () => state });
          const turn = (to) => { state = to; document.dispatchEvent(new Event("visibilitychange")); };
          const clock = new ActiveClock(5, () => now);
          const seen = [];
          now = 10_000; seen.push(clock.seconds);                                          // looking
          turn("hidden"); now = 60_000; turn("visible"); seen.push(clock.seconds);         // another window
          now = 61_000; document.dispatchEvent(new Event("keydown")); seen.push(clock.seconds);
          now = 1_000_000; seen.push(clock.seconds);                                       // gone for coffee
          document.dispatchEvent(new Event("pointermove")); now = 1_002_000;
          seen.push(clock.end());
          now = 2_000_000; seen.push(clock.seconds);                                       // ended
          return seen;
        }"""
    )
    assert counted == [15, 15, 16, 136, 138, 138]
