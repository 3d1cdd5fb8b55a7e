from __future__ import annotations

import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.harness import load_examples
from tests.browser.pictures import SLICE

BRAIN, OCT = "brain-mri-resnet50", "retinal-oct-oculusnet"


def explain(address: str, content: bytes, **fields: str) -> dict:
    answer = httpx.post(
        f"{address}v1/explain", data={"model": BRAIN} | fields, files={"images": ("a.png", content)}, timeout=60
    )
    return answer.raise_for_status().json()["results"][0]


def picture(page: Page) -> np.ndarray:
    """What the viewer shows, uint8 [H, W, 3]."""
    shown = page.locator(".viewer-canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")).astype(int)


def colourful(shown: np.ndarray) -> float:
    """Share of pixels that are not grey."""
    return float((shown.max(axis=2) - shown.min(axis=2) > 24).mean())


def slide(page: Page, control: str, value: float) -> None:
    page.locator(control).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def drop(page: Page, files: list[tuple[str, str, bytes]]) -> None:
    """As the browser does where files are dropped."""
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, type, bytes] of files) {
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
          }
          return transfer;
        }""",
        [[name, kind, list(content)] for name, kind, content in files],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def test_without_any_data_the_examples_show_a_prediction_with_its_evidence(address, examples):
    expect(examples.locator("#findings .label")).to_have_text("No tumour")
    expect(examples.locator("#findings")).to_contain_text("not a lesion outline")
    expect(examples.locator("#findings")).to_contain_text("not a medical device")
    assert colourful(picture(examples)) > 0.05
    found = explain(address, SLICE.read_bytes())
    shown = examples.locator(".bars meter").evaluate_all("bars => bars.map(bar => bar.value)")
    assert shown == pytest.approx(list(found["probabilities"].values()), abs=1e-4)


def test_a_picked_file_is_answered_as_over_http(address, page):
    page.set_input_files("#files", SLICE)
    expect(page.locator(".case-found.ready")).to_contain_text("No tumour 99.")
    expect(page.locator("#readout")).to_contain_text("map 7 × 7 cells")
    page.focus(".viewer-canvas")
    page.keyboard.press("ArrowRight")
    found = explain(address, SLICE.read_bytes())
    value = found["explanations"][0]["saliency"][3][3]
    expect(page.locator("#readout")).to_contain_text(f"map +{value:.3g} logit   cell 4, 4 of 7 × 7")
    expect(page.locator("#live")).to_contain_text("logit")


def test_files_that_cannot_be_read_are_named_beside_what_can(page):
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    damaged = {"name": "half.png", "mimeType": "image/png", "buffer": SLICE.read_bytes()[:2000]}
    whole = {"name": "slice.png", "mimeType": "image/png", "buffer": SLICE.read_bytes()}
    page.set_input_files("#files", [text, damaged, whole])
    case = page.locator(".cases li")
    expect(case.filter(has_text="notes.txt")).to_contain_text("neither PNG nor JPEG nor DICOM")
    expect(case.filter(has_text="half.png")).to_contain_text("truncated or damaged")
    expect(case.filter(has_text="slice.png")).to_contain_text("No tumour")
    case.filter(has_text="notes.txt").locator(".case").click()
    expect(page.locator("#findings .problem")).to_contain_text("not supported")
    case.filter(has_text="notes.txt").get_by_role("button", name="Close notes.txt").click()
    expect(case).to_have_count(2)


def test_a_service_that_is_gone_is_said_to_be(page):
    page.route("**/v1/explain", lambda route: route.abort())
    page.set_input_files("#files", SLICE)
    expect(page.locator("#findings .problem")).to_have_text("The service does not answer")
    page.unroute("**/v1/explain")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#findings .label")).to_have_text("No tumour")


@pytest.mark.parametrize("way", ["zip", "folder", "drop"])
def test_a_series_is_one_case_with_slices(address, page, tmp_path, way):
    archive = httpx.get(f"{address}v1/examples/series.zip").content
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = [(name, opened.read(name)) for name in reversed(opened.namelist())]
    if way == "zip":
        zipped = {"name": "series.zip", "mimeType": "application/zip", "buffer": archive}
        page.set_input_files("#files", zipped)
    elif way == "folder":
        for name, content in files:
            (tmp_path / name).write_bytes(content)
        page.set_input_files("#folder", tmp_path)
    else:
        drop(page, [(name, "", content) for name, content in files])
    expect(page.locator(".cases li")).to_have_count(1)
    expect(page.locator(".case-name")).to_have_text("Series of 11 slices")
    expect(page.locator("#slice-text")).to_have_text("6 / 11")
    middle = picture(page)
    page.keyboard.press("n")
    expect(page.locator("#slice-text")).to_have_text("7 / 11")
    page.locator(".viewer-canvas").hover()
    page.mouse.wheel(0, 130)
    expect(page.locator("#slice-text")).to_have_text("10 / 11")
    assert (picture(page).sum(axis=2) > 60).mean() < 0.8 * (middle.sum(axis=2) > 60).mean()
    expect(page.locator("#slice-verdict")).to_contain_text("This slice alone")


def test_a_series_that_no_rule_knows_says_why_and_may_be_asked_anyway(page, tmp_path):
    from tests.dicom_writers import classic_mr, saved

    image = np.asarray(Image.open(SLICE))
    for index, ds in enumerate(classic_mr([image, image // 2], BodyPartExamined="KNEE")):
        (tmp_path / f"{index}.dcm").write_bytes(saved(ds))
    page.set_input_files("#folder", tmp_path)
    expect(page.locator("#findings .warning")).to_contain_text("No rule")
    expect(page.locator("#findings .reasons").first).to_contain_text("the body part is not BRAIN")
    page.get_by_role("button", name=f"Ask {BRAIN} anyway").click()
    expect(page.locator("#findings .warning")).to_contain_text("do not rely on the prediction")
    expect(page.locator("#findings .label")).to_be_visible()


def test_an_image_of_another_kind_is_warned_of(page):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    drop(page, [("colour.png", "image/png", buffer.getvalue())])
    expect(page.locator("#findings .warning")).to_contain_text("Not of this model's kind: a colour image")
    expect(page.locator(".case-found")).to_contain_text("⚠")


def test_a_pasted_picture_is_opened(page):
    page.evaluate(
        """(bytes) => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([new Uint8Array(bytes)], "", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(SLICE.read_bytes()),
    )
    expect(page.locator(".case-name")).to_have_text("pasted picture")
    expect(page.locator(".case-found.ready")).to_be_visible()


def test_two_classes_are_compared_side_by_side_and_by_swiping(examples):
    examples.get_by_text("Side by side", exact=True).click()
    expect(examples.locator("#other-target")).to_have_value("meningioma")
    beside = picture(examples)
    half = beside.shape[1] // 2
    assert np.abs(beside[:, :half] - beside[:, -half:]).mean() > 2
    examples.get_by_text("Swipe", exact=True).click()
    swiped = picture(examples)
    box = examples.locator(".viewer-canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    examples.mouse.move(*middle)
    examples.mouse.down()
    examples.mouse.move(middle[0] + box["width"] / 4, middle[1], steps=4)
    examples.mouse.up()
    assert float(examples.input_value("#split")) == pytest.approx(0.75, abs=0.02)
    changed = np.abs(picture(examples) - swiped).sum(axis=(0, 2))
    where = np.flatnonzero(changed[60:]) + 60
    assert where.min() > 0.4 * len(changed)  # the colour bar moves along
    examples.select_option("#other-method", "layercam")
    expect(examples.locator("#other-method")).to_have_value("layercam")


def test_window_zoom_place_and_reset(examples):
    examples.check("#show input[value=hidden]", force=True)
    before = picture(examples)
    box = examples.locator(".viewer-canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    examples.mouse.move(x, y)
    examples.mouse.down()
    examples.mouse.move(x, y + 120, steps=3)
    examples.mouse.up()
    assert picture(examples).mean() < before.mean() - 3
    examples.mouse.wheel(0, -400)
    zoomed = picture(examples)
    examples.keyboard.down("Shift")
    examples.mouse.down()
    examples.mouse.move(x + 90, y + 120, steps=3)
    examples.mouse.up()
    examples.keyboard.up("Shift")
    assert np.abs(picture(examples) - zoomed).mean() > 1
    examples.click("#fit")
    assert np.array_equal(picture(examples), before)


def test_opacity_threshold_colours_contour_and_cells(examples):
    plain = picture(examples)
    slide(examples, "#threshold", 0.9)
    assert colourful(picture(examples)) < 0.6 * colourful(plain)
    slide(examples, "#threshold", 0.1)
    slide(examples, "#opacity", 0)
    assert colourful(picture(examples)[:, :-150]) == 0
    slide(examples, "#opacity", 0.5)
    assert np.array_equal(picture(examples), plain)
    shown = [plain]
    for colours in ("viridis", "cividis", "berlin", "jet"):
        examples.select_option("#colours", colours)
        shown.append(picture(examples))
    examples.uncheck("#smooth")
    shown.append(picture(examples))
    examples.check("#show input[value=contour]", force=True)
    shown.append(picture(examples))
    assert 0 < colourful(shown[-1][:, :-150]) < 0.05
    assert all(np.abs(a - b).mean() > 0.2 for a, b in pairwise(shown))


def test_why_this_class_and_not_another(address, examples):
    examples.select_option("#against", "meningioma")
    expect(examples.locator("#findings")).to_contain_text("Evidence for No tumour, and not Meningioma")
    examples.focus(".viewer-canvas")
    examples.keyboard.press("ArrowRight")
    found = explain(address, SLICE.read_bytes(), against="meningioma")["explanations"][0]["saliency"][3][3]
    expect(examples.locator("#readout")).to_contain_text(f"map +{found:.3g} logit")


def test_everything_by_keyboard(page):
    page.keyboard.press("e")
    page.locator(".case-found.ready").nth(2).wait_for()
    page.locator(".case").first.focus()
    first = page.locator("#findings h2").inner_text()
    page.keyboard.press("j")
    expect(page.locator("#findings h2")).not_to_have_text(first)
    page.keyboard.press("k")
    expect(page.locator("#findings h2")).to_have_text(first)
    page.keyboard.press("m")
    expect(page.locator("#method")).to_have_value("hirescam")
    page.keyboard.press("t")
    expect(page.locator("#target")).to_have_value("glioma")
    page.keyboard.press("o")
    assert page.is_checked("#show input[value=contour]")
    page.keyboard.press("c")
    assert page.is_checked("#compare input[value=side]")
    for key, control, value in ((",", "#opacity", "0.4"), (">", "#threshold", "0.15")):
        page.keyboard.press(key)
        expect(page.locator(control)).to_have_value(value)
    page.keyboard.press("v")
    assert page.evaluate("document.activeElement.className") == "viewer-canvas"
    before = picture(page)
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("W")
    assert np.abs(picture(page) - before).mean() > 1
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_single_keys_can_be_turned_off(examples):
    examples.keyboard.press("?")
    examples.uncheck("#single-keys")
    examples.keyboard.press("Escape")
    examples.keyboard.press("o")
    assert examples.is_checked("#show input[value=colour]")


def test_a_slow_method_shows_its_progress_and_can_be_stopped(examples):
    examples.select_option("#method", "kernelshap")
    expect(examples.locator("#working")).to_contain_text("kernelshap")
    examples.click("#working-stop")
    expect(examples.locator("#working")).to_be_hidden()
    expect(examples.locator("#method")).to_have_value("gradcam")
    examples.locator(".case", has_text="Drawing").click()
    examples.select_option("#method", "smoothgrad")
    expect(examples.locator("#working")).to_be_visible()
    expect(examples.locator("#findings")).to_contain_text("smoothgrad: mean gradient", timeout=60_000)
    expect(examples.locator("#readout")).to_contain_text("map 224 × 224 cells")


def saved(page: Page, button: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_what_is_shown_can_be_taken_away(address, page):
    page.set_input_files("#files", {"name": "Doe^Jane.png", "mimeType": "image/png", "buffer": SLICE.read_bytes()})
    page.locator(".case-found.ready").wait_for()
    found = explain(address, SLICE.read_bytes())
    saliency = np.array(found["explanations"][0]["saliency"], np.float32)
    files = {kind: saved(page, f"#save-{kind}") for kind in ("npz", "json", "png", "pdf")}
    assert {name for name, _ in files.values()} == {f"radiolucent-{BRAIN}-gradcam-no_tumor.{kind}" for kind in files}
    assert not any(b"Jane" in content for _, content in files.values())
    with np.load(io.BytesIO(files["npz"][1])) as arrays:
        assert np.array_equal(arrays["image"][0], np.asarray(Image.open(SLICE), np.float32))
        assert np.array_equal(arrays["saliency"][0], saliency)
        assert arrays["region"][0] == pytest.approx(found["region"])
        assert str(arrays["method"]) == "gradcam"
        assert "not a medical device" in str(arrays["notice"])
    content = json.loads(files["json"][1])
    assert content["slices"][0]["explanation"]["saliency"] == found["explanations"][0]["saliency"]
    assert content["probabilities"] == found["probabilities"]
    shown = Image.open(io.BytesIO(files["png"][1]))
    assert shown.width > 1000
    assert files["pdf"][1].startswith(b"%PDF-")


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1440, 900), ("dark", 1440, 900), ("dark", 360, 740)])
def test_no_serious_barrier(open_at, scheme, width, height):
    page = open_at(scheme=scheme, width=width, height=height)
    barriers = {"empty": serious(page)}
    load_examples(page)
    page.click("#compare label:last-of-type")
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    barriers["image"] = serious(page)
    page.locator(".case", has_text="Series").click()
    barriers["series"] = serious(page)
    page.keyboard.press("?")
    barriers["help"] = serious(page)
    assert not any(barriers.values()), barriers


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response
    assert len(found["passes"]) > 15  # it looked
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_a_narrow_screen_needs_no_sideways_scrolling(open_at):
    page = open_at(width=360, height=740)
    load_examples(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator(".viewer-canvas").bounding_box()
    assert box["width"] == 360
    assert box["y"] + box["height"] < 740
    for control in ("#method", "#opacity", "#fit", "#save-pdf"):
        page.locator(control).scroll_into_view_if_needed()
        inside = page.locator(control).bounding_box()
        assert inside["x"] >= 0
        assert inside["x"] + inside["width"] <= 360


def test_motion_is_reduced_where_that_is_asked(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    assert page.locator("#pick").evaluate("button => getComputedStyle(button).transitionDuration") == "0s"
    context.close()
