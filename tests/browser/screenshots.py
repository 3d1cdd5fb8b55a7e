"""The pictures of the page in the documents: `python -m tests.browser.screenshots`."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser.harness import ROOT, chromium, load_examples, open_page, served
from tests.browser.pictures import drawn, png

IMAGES = ROOT / "docs" / "images"


def keep(page: Page, name: str) -> None:
    """Write a picture of what is seen."""
    page.mouse.move(0, 0)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(IMAGES / name, optimize=True)


def desktop(browser: Browser, address: str) -> None:
    """The first minute: an example with its evidence."""
    page = open_page(browser, address, 1200, 760)
    load_examples(page)
    keep(page, "page.png")


def comparison(browser: Browser, address: str) -> None:
    """Two classes beside each other on one scale, in light, with what is known of such maps."""
    page = open_page(browser, address, 1180, 720, "light")
    load_examples(page)
    page.get_by_text("Side by side", exact=True).click()
    page.locator("#quality").evaluate("each => { each.open = true; }")
    page.wait_for_timeout(600)
    keep(page, "page-compare.png")


def phone(browser: Browser, address: str) -> None:
    """A series by contours, on a phone."""
    page = open_page(browser, address, 390, 844)
    load_examples(page)
    page.locator(".case", has_text="Series").click()
    page.get_by_text("Contour", exact=True).click()
    keep(page, "page-phone.png")


def outline(browser: Browser, address: str) -> None:
    """What the U-Net outlines of a drawn disc, over the evidence of the classifier."""
    page = open_page(browser, address, 1200, 820)
    page.set_input_files("#files", {"name": "A disc, drawn.png", "mimeType": "image/png", "buffer": png(drawn())})
    page.check("#outline")
    page.locator("#outlined strong").wait_for()
    keep(page, "page-outline.png")


def main() -> None:
    """Write all of them."""
    with TemporaryDirectory() as folder, served(Path(folder)) as address, chromium() as browser:
        for shoot in (desktop, comparison, phone, outline):
            shoot(browser, address)


if __name__ == "__main__":
    main()
