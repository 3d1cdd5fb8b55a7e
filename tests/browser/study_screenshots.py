"""The readers' page as docs/reader-study.md shows it: the drawn example study with the shipped brain model.

python -m tests.browser.study_screenshots [FOLDER]      docs/images where left out
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.harness import ROOT, chromium, served

SEED = "11"  # its first case with explanation shows a drawn glioma
ITEMS = {"clear": 4, "plausible": 2, "relevant": 2, "useful": 3, "trust": 2}


def main(folder: Path) -> None:
    """Write `reader-study.png` and `reader-study-phone.png`."""
    with tempfile.TemporaryDirectory() as name, chromium() as browser, served(Path(name)) as address:
        links = _links(Path(name), address)
        for file, width, height, scheme, link in (
            ("reader-study.png", 1440, 900, "dark", links[0]),
            ("reader-study-phone.png", 390, 844, "light", links[0]),
        ):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.goto(link)
            page.click("#begin")
            _read_on(page)
            page.screenshot(path=folder / file)
            context.close()


def _links(folder: Path, address: str) -> list[str]:
    environment = os.environ | {"RADIOLUCENT_READER_STUDIES": f"sqlite:///{folder}/reader-studies.db"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "service.reader_study", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, check=True).stdout

    run("example", str(folder / "example"))
    more = ["--model", "brain-mri-resnet50", "--readers", "2", "--seed", SEED, "--address", address]
    return re.findall(r"http\S+#\S+", run("create", str(folder / "example"), "--name", "Pilot study", *more))


def _read_on(page: Page) -> None:
    """Answer until a case with explanation that is no training case is open, and fill it in."""
    while True:
        page.locator("#reading:not([hidden])").wait_for()
        page.wait_for_function("!document.getElementById('save').disabled")
        explained, training = page.locator("#ratings").is_visible(), page.locator("#training").is_visible()
        page.get_by_role("radio", name="Glioma", exact=True).check()
        page.fill("#confidence", "75")
        for item, value in ITEMS.items() if explained else ():
            page.locator(f".scale label:has([name={item}][value='{value}'])").click()
        page.get_by_text("Saved", exact=True).wait_for()
        if explained and not training:
            page.evaluate("scrollTo(0, 0)")
            return
        before = page.locator("#where").inner_text()
        page.click("#save")
        if training:
            page.click("#go-on")
        page.wait_for_function("before => document.getElementById('where').innerText !== before", arg=before)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
