"""The page's modules that have no page around them."""

from __future__ import annotations

import io
import zipfile

import matplotlib as mpl
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from service.rendering import on_frame
from service.types import Region


def call(page, module: str, code: str, *arguments: object) -> object:
    """What a function of the page's module gives; `code` is a function of the module and the arguments."""
    return page.evaluate(
        f"async ([module, given]) => ({code})(await import(module), ...given)", [f"/page/{module}", list(arguments)]
    )


@pytest.mark.parametrize("level", [-0.5, 0.0, 0.7])
def test_contours_lie_where_the_grid_has_their_value(page, level):
    grid = np.random.default_rng(1).normal(size=(9, 12))
    segments = call(
        page, "contours.js", "(m, v, r, c, l) => m.contour(v, r, c, l)", grid.ravel().tolist(), 9, 12, level
    )
    x0, y0, x1, y1 = np.array(segments).reshape(-1, 4).T
    for x, y in ((x0, y0), (x1, y1)):
        # on the edges of the grid, where bilinear interpolation is linear
        assert map_coordinates(grid, [y, x], order=1) == pytest.approx(level, abs=1e-9)
    edges = (np.diff(grid >= level, axis=0)).sum() + (np.diff(grid >= level, axis=1)).sum()
    ends = {(round(x, 9), round(y, 9)) for x, y in zip([*x0, *x1], [*y0, *y1], strict=True)}
    assert len(ends) == edges


def test_colours_stand_for_values_as_the_service_places_them(page):
    values = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
    style = {"colours": "viridis", "opacity": 1, "threshold": 0.2, "show": "colour", "smooth": True}
    code = """(m, values, style) => {
      const map = { rows: 7, columns: 5, values: Float32Array.from(values), region: [0, 0, 5, 7], title: "", unit: "" };
      const canvas = m.paintMap(map, style);
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [canvas.width, canvas.height, [...data]];
    }"""
    width, height, data = call(page, "painting.js", code, values.ravel().tolist(), style)
    painted = np.array(data).reshape(height, width, 4)
    strength = on_frame(values, Region(0, 0, width, height), (height, width)) / values.max()
    shown = painted[..., 3] > 0
    near = np.abs(strength - 0.2) < 0.01
    assert np.array_equal(shown[~near], (strength >= 0.2)[~near])
    expected = mpl.colormaps["viridis"](np.rint(strength * 255).astype(int), bytes=True)[..., :3].astype(int)
    sure = shown & ~near & (strength > 0.3)
    assert np.abs(painted[..., :3] - expected)[sure].max() <= 8  # alpha is stored multiplied into the colour
    assert np.abs(painted[..., 3] - 255 * np.sqrt(np.clip(strength, 0, 1)))[sure].max() <= 1


READ = """async (m, bytes) => {
  try {
    const found = await m.readZip(new Blob([new Uint8Array(bytes)]));
    return Promise.all(found.map(async ({ name, file }) => [name, await file.text()]));
  } catch (error) { return error.message; }
}"""


def archive(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as opened:
        opened.writestr("a/one.txt", "one" * 100)
        opened.mkdir("empty")
        opened.writestr("two.txt", "")
        opened.comment = b"a comment at the end"
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_archives_are_read(page, method):
    assert call(page, "zip.js", READ, list(archive(method))) == [["a/one.txt", "one" * 100], ["two.txt", ""]]


def test_a_damaged_or_lying_archive_is_refused(page):
    whole = archive(zipfile.ZIP_DEFLATED)
    assert "damaged" in call(page, "zip.js", READ, list(whole[: len(whole) // 2]))
    assert "damaged" in call(page, "zip.js", READ, list(b"PK\x03\x04 nothing"))
    size = (300).to_bytes(4, "little")
    at = whole.rindex(size)  # in the central directory
    assert "another size" in call(
        page, "zip.js", READ, list(whole[:at] + (299).to_bytes(4, "little") + whole[at + 4 :])
    )
    packed = whole.index(b"a/one.txt") + len("a/one.txt")
    assert "damaged" in call(page, "zip.js", READ, list(whole[:packed] + b"\xff" * 4 + whole[packed + 4 :]))


def test_frames_are_shown_between_the_ends_of_their_window(page):
    code = """(m) => {
      const pixels = Uint16Array.of(0, 80, 200, 65535);
      const frame = { width: 4, height: 1, pixels, slope: 0.5, intercept: -10, window: [0, 1] };
      const canvas = m.paintFrame(frame, [-10, 90]);
      return [...canvas.getContext("2d").getImageData(0, 0, 4, 1).data];
    }"""
    grey = np.array(call(page, "painting.js", code)).reshape(4, 4)
    assert grey[:, 0].tolist() == [0, 102, 255, 255]
    assert (grey[:, 3] == 255).all()


def test_arrays_are_what_numpy_reads(page):
    code = """async (m) => {
      const blob = m.npz({
        a: { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6.5) },
        row: { shape: [1], data: Float32Array.of(7) },
        text: { shape: [], data: "Grad-CAM · μ" }, empty: { shape: [], data: "" },
      });
      return [...new Uint8Array(await blob.arrayBuffer())];
    }"""
    with np.load(io.BytesIO(bytes(call(page, "npz.js", code)))) as arrays:
        assert arrays["a"].tolist() == [[1, 2, 3], [4, 5, 6.5]]
        assert arrays["row"].tolist() == [7]
        assert str(arrays["text"]) == "Grad-CAM · μ"
        assert str(arrays["empty"]) == ""
