"""Images that are not of a model's kind, as model input: made ones, and real ones that are given.

A gate is fitted on some of them and measured on others, kind by kind. What is made either needs nothing (noise,
text, drawings), or is one of the model's own images that was spoilt (turned, negated, cut into tiles).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.data import shepp_logan_phantom
from sklearn.datasets import load_sample_images
from tqdm import tqdm

from service.images.reading import read_frames, sniff
from service.preprocessing import prepare
from service.types import Float, Frame, Grey8, PreprocessingSpec
from training.datasets.class_folders import read_grey
from training.datasets.record import DatasetError

Random = np.random.Generator
Maker = Callable[[Grey8, Random], Grey8]
TURNED = ("upside_down", "sideways")  # kinds that are own images, turned
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Images that are not of the model's kind.

    Attributes:
        images: model input, uint8 `[N, S, S]`.
        kinds: what each is, `[N]`.
    """

    images: Grey8
    kinds: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.kinds)


def make_foreign(own: Grey8, each: int, seed: int = 0, kinds: Sequence[str] | None = None) -> Foreign:
    """Make foreign images of every kind.

    Args:
        own: images of the model's kind, uint8 `[N, S, S]`; some are spoilt.
        each: how many of each kind.
        seed: of all that is drawn by chance.
        kinds: of `KINDS`; None: all.

    Raises:
        ValueError: a kind does not exist, or there is no own image.
    """
    chosen = tuple(KINDS) if kinds is None else tuple(kinds)
    if strangers := sorted(set(chosen) - set(KINDS)):
        raise ValueError(f"there are no kinds {strangers}; there are {list(KINDS)}")
    if not len(own):
        raise ValueError("some foreign images are made of own ones, and there is none")
    made: list[Grey8] = []
    for kind in tqdm(chosen, desc="foreign images", unit="kind", leave=False):
        random = np.random.default_rng([seed, list(KINDS).index(kind)])
        rows = random.integers(len(own), size=each)
        made += [KINDS[kind](np.asarray(own[row]), random) for row in rows]
    side = own.shape[-1]
    return Foreign(np.array(made, np.uint8).reshape(-1, side, side), np.repeat(np.array(chosen, np.str_), each))


def read_foreign(
    sources: Mapping[str, Sequence[Path]], spec: PreprocessingSpec, each: int | None = None, seed: int = 0
) -> Foreign:
    """Read foreign images from files, as the service reads them, and prepare them for the model.

    Args:
        sources: files by kind: PNG, JPEG, DICOM, and what Pillow reads.
        spec: the model's preprocessing.
        each: of each kind at most so many files, drawn by chance; None: all.
        seed: of what is drawn.

    Raises:
        UnreadableImage: a file cannot be read; so do Pillow's errors say.
    """
    images: list[Grey8] = []
    names: list[str] = []
    for kind, paths in sources.items():
        chosen: Sequence[Path] = paths
        if each is not None and each < len(paths):
            rows = np.random.default_rng(seed).choice(len(paths), each, replace=False)
            chosen = [paths[row] for row in sorted(rows.tolist())]
        for path in tqdm(chosen, desc=f"reading {kind}", unit="file", leave=False):
            frames = _read(path)
            frame = frames[len(frames) // 2]  # of a volume the middle one
            images.append(prepare(frame, spec).pixels)
            names.append(kind)
    return Foreign(np.array(images, np.uint8).reshape(-1, spec.size, spec.size), np.array(names, np.str_))


def kinds_in(folder: Path) -> dict[str, list[Path]]:
    """List the files below every folder of a folder, by the folder's name.

    Raises:
        DatasetError: there is none.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    found = {
        path.name: sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")) for path in folders
    }
    found = {kind: paths for kind, paths in found.items() if paths}
    if not found:
        raise DatasetError(f"{folder}: no folders with files; each is to hold images of one foreign kind")
    return found


def join(*parts: Foreign) -> Foreign:
    """Put foreign images of several origins together."""
    return Foreign(np.concatenate([one.images for one in parts]), np.concatenate([one.kinds for one in parts]))


def _read(path: Path) -> list[Frame]:
    content = path.read_bytes()
    return read_frames(content, path.name) if sniff(content) else [Frame(path.name, read_grey(path))]


def _white_noise(own: Grey8, random: Random) -> Grey8:
    level, spread = random.uniform(60, 190), random.uniform(15, 90)
    return _whole(random.normal(level, spread, own.shape))


def _smooth_noise(own: Grey8, random: Random) -> Grey8:
    """Noise whose power falls with frequency: clouds."""
    side = own.shape[0]
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1 / side
    spectrum = np.fft.rfft2(random.normal(size=own.shape)) / frequency ** random.uniform(0.5, 2)
    return _stretched(np.fft.irfft2(spectrum, s=own.shape))


def _constant(own: Grey8, random: Random) -> Grey8:
    return np.full(own.shape, random.integers(0, 256), np.uint8)


def _gradient(own: Grey8, random: Random) -> Grey8:
    """A ramp in some direction, or from the middle outwards."""
    place = np.linspace(-1, 1, own.shape[0])
    angle = random.uniform(0, 2 * np.pi)
    ramp = place[:, None] * np.sin(angle) + place[None] * np.cos(angle)
    return _stretched(np.hypot(place[:, None], place[None]) * random.choice([-1, 1]) if random.random() < 0.4 else ramp)


def _checkerboard(own: Grey8, random: Random) -> Grey8:
    side, cell = own.shape[0], int(random.integers(4, max(6, own.shape[0] // 4)))
    dark, bright = np.sort(random.integers(0, 256, 2))
    cells = (np.add.outer(np.arange(side) // cell, np.arange(side) // cell) % 2).astype(np.float64)
    return _whole(dark + cells * (bright - dark))


def _text(own: Grey8, random: Random) -> Grey8:
    """A page of words that mean nothing."""
    side = own.shape[0]
    white = bool(random.random() < 0.6)
    page = Image.new("L", (side, side), 245 if white else 5)
    pen, size = ImageDraw.Draw(page), max(6, int(side * random.uniform(0.035, 0.12)))
    font = ImageFont.load_default(size)
    top = int(side * random.uniform(0, 0.15))
    while top < side:
        words = ["".join(random.choice(list(_LETTERS), random.integers(1, 11))) for _ in range(2 + 2 * side // size)]
        if random.random() < 0.85:  # else an empty line
            pen.text((int(side * 0.05), top), " ".join(words)[: 2 * side // size], fill=15 if white else 235, font=font)
        top += int(size * 1.4)
    return np.asarray(page, np.uint8)


def _drawing(own: Grey8, random: Random) -> Grey8:
    """Ellipses in an ellipse: the phantom of Shepp and Logan (1974), or one drawn by chance."""
    side = own.shape[0]
    if random.random() < 0.3:
        phantom = cv2.resize(np.asarray(shepp_logan_phantom(), np.float32), (side, side), interpolation=cv2.INTER_AREA)
        return _whole(255 * np.clip(phantom, 0, 1) ** random.uniform(0.4, 1.2))
    canvas = np.zeros(own.shape, np.uint8)
    middle = (side // 2, side // 2)
    axes = (int(side * random.uniform(0.3, 0.45)), int(side * random.uniform(0.35, 0.48)))
    cv2.ellipse(canvas, middle, axes, 0, 0, 360, int(random.integers(120, 256)), -1)
    cv2.ellipse(canvas, middle, (axes[0] * 9 // 10, axes[1] * 9 // 10), 0, 0, 360, int(random.integers(30, 130)), -1)
    for _ in range(random.integers(2, 8)):
        x, y = (int(value) for value in random.uniform(0.3, 0.7, 2) * side)
        size = (int(side * random.uniform(0.02, 0.12)), int(side * random.uniform(0.02, 0.12)))
        cv2.ellipse(canvas, (x, y), size, random.uniform(0, 180), 0, 360, int(random.integers(0, 256)), -1)
    return canvas


def _photograph(own: Grey8, random: Random) -> Grey8:
    """Cut a piece out of one of scikit-learn's two sample photographs."""
    photographs: list[NDArray[np.uint8]] = load_sample_images().images
    photograph = photographs[int(random.integers(len(photographs)))]
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    side = int(random.integers(80, grey.shape[0] + 1))
    top, left = (int(random.integers(length - side + 1)) for length in grey.shape)
    piece = grey[top : top + side, left : left + side][:, :: random.choice([-1, 1])]
    return _resized(np.asarray(piece, np.uint8), own.shape[0])


def _upside_down(own: Grey8, random: Random) -> Grey8:
    return np.ascontiguousarray(own[::-1, ::-1])


def _sideways(own: Grey8, random: Random) -> Grey8:
    return np.ascontiguousarray(np.rot90(own, random.choice([1, 3])))


def _negated(own: Grey8, random: Random) -> Grey8:
    return 255 - own


def _corner(own: Grey8, random: Random) -> Grey8:
    """Zoom into a small piece."""
    side = own.shape[0]
    piece = int(side * random.uniform(0.15, 0.3))
    top, left = random.integers(0, side - piece + 1, 2)
    return _resized(own[top : top + piece, left : left + piece], side)


def _shuffled_tiles(own: Grey8, random: Random) -> Grey8:
    """Cut an image into tiles and put them together in another order."""
    side, count = own.shape[0], int(random.integers(3, 9))
    size = -(-side // count)
    wide = _resized(own, size * count)
    tiles = wide.reshape(count, size, count, size).swapaxes(1, 2).reshape(-1, size, size)
    mixed = tiles[random.permutation(len(tiles))].reshape(count, count, size, size).swapaxes(1, 2)
    return _resized(mixed.reshape(size * count, -1), side)


def _head_ct(own: Grey8, random: Random) -> Grey8:
    """Make a crude head CT of a head: a dim skin, a ring of white bone, a brain that is nearly flat."""
    side = own.shape[0]
    head = cv2.morphologyEx((own > 20).astype(np.uint8), cv2.MORPH_CLOSE, _disc(side // 12))
    outlines, _ = cv2.findContours(head, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    head = cv2.drawContours(np.zeros_like(head), outlines, -1, 255, -1)
    head = (cv2.GaussianBlur(head, (0, 0), side / 40) > 127).astype(np.uint8)
    depth = cv2.distanceTransform(cv2.copyMakeBorder(head, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    skin, bone = side * random.uniform(0.01, 0.035), side * random.uniform(0.025, 0.06)
    smooth = cv2.GaussianBlur(own.astype(np.float32), (0, 0), side / 150)
    inside = depth > skin + bone
    middle = float(smooth[inside].mean()) if inside.any() else 0.0
    level, contrast = random.uniform(55, 150), random.uniform(0.04, 0.25)
    picture = np.where(inside, level + contrast * (smooth - middle), 255.0)
    picture = np.where(depth <= skin, level * random.uniform(0.3, 0.9), picture)
    picture = np.asarray(cv2.GaussianBlur(np.where(depth > 0, picture, 0.0), (0, 0), side / 250))
    return _whole(picture + (depth > 0) * random.normal(0, random.uniform(1, 8), own.shape))


KINDS: Mapping[str, Maker] = MappingProxyType(
    {
        "white_noise": _white_noise,
        "smooth_noise": _smooth_noise,
        "constant": _constant,
        "gradient": _gradient,
        "checkerboard": _checkerboard,
        "text": _text,
        "drawing": _drawing,
        "photograph": _photograph,
        "upside_down": _upside_down,
        "sideways": _sideways,
        "negated": _negated,
        "corner": _corner,
        "shuffled_tiles": _shuffled_tiles,
        "head_ct": _head_ct,
    }
)


def _disc(radius: int) -> Grey8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _resized(image: Grey8, side: int) -> Grey8:
    how = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=how), np.uint8)


def _stretched(values: NDArray[np.float64]) -> Grey8:
    return _whole(255 * (values - values.min()) / max(float(np.ptp(values)), 1e-9))


def _whole(values: NDArray[np.float64] | Float) -> Grey8:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
