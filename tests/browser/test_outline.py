"""Outlines of the segmentation model beside the heat-map."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.pictures import SLICE, drawn, png
from tests.browser.test_page import BRAIN, picture, saved, serious
from tests.dicom_writers import classic_mr, enhanced_mr
from tests.dicom_writers import saved as dicom

UNET = "brain-mri-unet"


def outlined(address: str, content: bytes) -> dict:
    answer = httpx.post(f"{address}v1/segment", data={"model": UNET}, files={"images": ("a", content)}, timeout=60)
    return answer.raise_for_status().json()["results"][0]


def pink(shown: np.ndarray) -> np.ndarray:
    """Where the outline's colour is, bool [H, W]."""
    return np.abs(shown - [255, 128, 229]).max(axis=2) < 40


@pytest.fixture
def blob(page) -> Page:
    page.set_input_files("#files", {"name": "blob.png", "mimeType": "image/png", "buffer": png(drawn())})
    page.locator(".case-found.ready").wait_for()
    return page


def test_only_classifiers_are_asked_for_a_prediction(blob):
    expect(blob.locator("#outline")).to_be_visible()
    offered = blob.locator("#model option").evaluate_all("all => all.map(each => each.value)")
    assert BRAIN in offered
    assert UNET not in offered
    blob.get_by_role("button", name="Close blob.png").click()
    expect(blob.locator(".models li", has_text="U-Net")).to_contain_text(
        "Outlines beside the evidence: Tumour. Dice 0."
    )


def test_the_contour_lies_over_image_and_map_where_the_service_puts_it(address, blob):
    blob.check("#show input[value=hidden]", force=True)
    assert not pink(picture(blob)).any()
    blob.check("#outline")
    found = outlined(address, png(drawn()))
    section = blob.locator("#outlined")
    expect(section).to_contain_text(f"Tumour: {found['area_pixels']:,} pixels")
    expect(section).to_contain_text(f"{UNET} 1.0.0")
    expect(section).to_contain_text("at least 10.0 %")
    expect(section).to_contain_text("Mean Dice 0.65 (0.59 to 0.76)")
    expect(section).to_contain_text("not a measured lesion")
    assert "mm" not in section.locator("strong").inner_text()  # a PNG has no spacing
    shown = pink(picture(blob))
    scale = min(shown.shape[1] / 197, shown.shape[0] / 233)
    line = np.array(found["contours"][0]) - [197 / 2, 233 / 2]
    expected = line * scale + [shown.shape[1] / 2, shown.shape[0] / 2]
    rows, columns = np.nonzero(shown)
    lowest, highest = expected.min(axis=0), expected.max(axis=0)
    assert [columns.min(), rows.min()] == pytest.approx(lowest, abs=3)
    assert [columns.max() + 1, rows.max() + 1] == pytest.approx(highest, abs=3)
    blob.check("#show input[value=contour]", force=True)
    both = picture(blob)
    assert pink(both).sum() > 0.8 * shown.sum()
    blob.uncheck("#outline")
    assert not pink(picture(blob)).any()
    expect(section).to_have_count(0)


def test_the_outline_by_key_is_told_and_taken_away_with_the_picture(blob):
    blob.keyboard.press("b")
    expect(blob.locator("#outline")).to_be_checked()
    expect(blob.locator("#live")).to_contain_text("Outline. Tumour: ")
    assert "Outline: Tumour" in blob.locator(".viewer-canvas").get_attribute("aria-label")
    name, content = saved(blob, "#save-png")
    assert UNET not in name
    with_outline = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert pink(with_outline).sum() > 500
    blob.keyboard.press("?")
    expect(blob.locator("#help")).to_contain_text("Outline of a segmentation model")
    blob.keyboard.press("Escape")
    blob.keyboard.press("b")
    expect(blob.locator("#outlined")).to_have_count(0)
    _, plain = saved(blob, "#save-png")
    assert not pink(np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")).astype(int)).any()


@pytest.mark.parametrize("multi_frame", [False, True])
def test_the_slice_that_is_shown_is_outlined_with_its_area(address, page, tmp_path, multi_frame):
    head = np.asarray(Image.open(SLICE))
    images = [drawn(), drawn(), head, head]
    files = [dicom(ds) for ds in ([enhanced_mr(images)] if multi_frame else classic_mr(images))]
    for index, content in enumerate(files):
        (tmp_path / f"{index}.dcm").write_bytes(content)
    page.set_input_files("#folder", tmp_path)
    page.locator(".case-found.ready").wait_for()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/v1/segment") else None)
    page.locator(".viewer-canvas").hover()
    page.check("#outline")
    page.locator("#slice").focus()
    page.keyboard.press("Home")
    found = outlined(address, files[0])
    expect(page.locator("#outlined")).to_contain_text(f"{found['area_pixels']:,} pixels, {found['area_mm2']:,.0f} mm²")
    page.keyboard.press("End")
    expect(page.locator("#outlined")).to_contain_text("Tumour: nothing outlined")
    assert not pink(picture(page)).any()
    seen = len(asked)
    page.keyboard.press("Home")
    expect(page.locator("#outlined")).to_contain_text(f"{found['area_pixels']:,} pixels")
    assert len(asked) == seen <= (1 if multi_frame else 3)  # what was found is kept


def test_an_outline_that_fails_says_why_beside_the_case_and_can_be_asked_again(blob):
    blob.route("**/v1/segment", lambda route: route.abort())
    blob.check("#outline")
    expect(blob.locator("#outlined .problem")).to_have_text("The service does not answer")
    expect(blob.locator("#findings .label")).to_be_visible()  # the prediction stands
    blob.unroute("**/v1/segment")
    blob.locator("#outlined").get_by_role("button", name="Try again").click()
    expect(blob.locator("#outlined")).to_contain_text("pixels")


def test_a_file_that_the_model_cannot_read_says_why(blob):
    failed = {"status": "failed", "error": {"title": "Unreadable", "detail": "the image is empty"}}
    blob.route("**/v1/segment", lambda route: route.fulfill(json={"results": [failed]}))
    blob.check("#outline")
    expect(blob.locator("#outlined .problem")).to_have_text("the image is empty")
    expect(blob.locator("#live")).to_have_text("the image is empty")


def test_no_outline_is_offered_for_what_the_model_is_not_for(examples):
    expect(examples.locator("#outline")).to_be_visible()
    examples.locator(".case", has_text="Drawing").click()
    expect(examples.locator("#outline")).to_be_hidden()
    examples.keyboard.press("b")
    expect(examples.locator("#outlined")).to_have_count(0)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 360)])
def test_no_serious_barrier(open_at, scheme, width):
    page = open_at(scheme=scheme, width=width)
    page.set_input_files("#files", {"name": "blob.png", "mimeType": "image/png", "buffer": png(drawn())})
    page.check("#outline")
    expect(page.locator("#outlined")).to_contain_text("pixels")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
