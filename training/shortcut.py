"""Has the network learnt the tumour, or where the image comes from?

Where healthy images come from another source than the others, a classifier can tell them apart without looking for a
tumour (Geirhos et al., "Shortcut learning in deep neural networks", Nat. Mach. Intell. 2020). Two questions measure it:

- The tumour is painted over. A network that looks at tumours now calls the slice healthy. As a control, a patch of the
  same shape is painted over elsewhere in the head, which should change nothing.
- The tumour cannot be seen, in any image: only the background, only the outline of the head, or a thumbnail of 8 x 8.
  A network that looks at tumours can no longer tell the classes apart (area under the ROC curve of 0.5).

All functions work on model input: grey uint8 `[S, S]`, masks uint8 `[S, S]`, non-zero inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.types import Grey8
from training.bootstrap import Array, Estimate, Resamples
from training.findings import finding_called, finding_score
from training.metrics import auroc, binary

Mask = NDArray[np.bool_]
Classify = Callable[[Grey8, str], Array]  # images `[N, S, S]` and a description to probabilities `[N, K]`
Removal = Literal["inpainted", "mirrored", "control"]
THUMBNAIL = 8
_MARGIN = 0.03  # of the side: how far beyond its outline a tumour is painted over
_FLOOR = 8  # grey values of 255 below which nothing is tissue
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Slices:
    """`images` and `masks` uint8 `[N, S, S]`; `has_mask` and `tumour` (as labelled) bool `[N]`."""

    images: Grey8
    masks: Grey8
    has_mask: Mask
    tumour: Mask


def measure(
    slices: Slices, called: Mask, healthy: NDArray[np.int64], classify: Classify, resamples: Resamples
) -> tuple[dict[str, Estimate], dict[str, int]]:
    """Both questions' answers.

    Args:
        slices: the images of one part.
        called: bool `[N]`, which of them the network calls a tumour as they are.
        healthy: numbers of the healthy classes.
        classify: the network.
        resamples: of the N images.

    Returns:
        `removed/<variant>/called_tumour`: share of those tumour slices that were called a tumour before and still are;
        `hidden/<variant>/auroc` and `.../balanced_accuracy`. And how many images each variant counts.
    """
    found: dict[str, Estimate] = {}
    counts: dict[str, int] = {}
    chosen = np.flatnonzero(slices.has_mask & slices.tumour & called)
    removals: tuple[Removal, ...] = ("inpainted", "mirrored", "control")
    for removal in removals:
        rows, images = removed(slices, chosen, removal)
        counts[f"removed/{removal}"] = len(rows)
        if len(rows):
            still = np.zeros(len(called), np.bool_)
            still[rows] = finding_called(classify(images, removal), healthy)
            share = resamples.ratio(still, np.isin(np.arange(len(called)), rows))
            found |= {} if share is None else {f"removed/{removal}/called_tumour": share}
    for name, hide in HIDDEN.items():
        probabilities = classify(np.stack([hide(image) for image in slices.images]), name)
        score = finding_score(probabilities, healthy)
        found |= separation(slices.tumour, score, finding_called(probabilities, healthy), resamples, f"hidden/{name}/")
        counts[f"hidden/{name}"] = len(probabilities)
    return found, counts


def separation(present: Mask, score: Array, called: Mask, resamples: Resamples, prefix: str) -> dict[str, Estimate]:
    """How well scores `[N]` and calls bool `[N]` tell images with and without a tumour apart."""
    area = auroc(present, score, resamples)
    found = {} if area is None else {f"{prefix}auroc": area}
    return found | {
        k: v for k, v in binary(present, called, resamples, prefix).items() if k.endswith("balanced_accuracy")
    }


def probe(training: Slices, test: Slices, resamples: Resamples) -> dict[str, Estimate]:
    """How well a logistic regression on thumbnails tells the classes apart: what the data give away to any network.

    It is fitted on `training` (the validation part); empty where that holds one class only.
    """
    if len(np.unique(training.tumour)) < 2:
        return {}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(_thumbnails(training.images), training.tumour)
    score = np.asarray(model.predict_proba(_thumbnails(test.images))[:, 1])
    return separation(test.tumour, score, score >= 0.5, resamples, "probe/thumbnail/")


def removed(slices: Slices, rows: NDArray[np.int64], removal: Removal) -> tuple[NDArray[np.int64], Grey8]:
    """Images of `rows` after a removal, and which rows those are; a row where it is impossible is left out."""
    kept: list[int] = []
    images: list[Grey8] = []
    for row, image in _variants(slices, rows, removal):
        if image is not None:
            kept.append(row)
            images.append(image)
    shape = (0, *slices.images.shape[1:])
    return np.array(kept, np.int64), np.stack(images) if images else np.zeros(shape, np.uint8)


def widened(mask: Grey8) -> Mask:
    """The mask grown by 3 % of the side, bool `[S, S]`: its rim and the blur of resampling go too."""
    reach = max(1, round(_MARGIN * mask.shape[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate((mask > 0).astype(np.uint8), disc).astype(np.bool_)


def inpainted(image: Grey8, area: Mask) -> Grey8:
    """The area filled from its rim inwards (Telea, "An image inpainting technique", J. Graph. Tools 2004)."""
    return np.asarray(cv2.inpaint(image, area.astype(np.uint8), 5, cv2.INPAINT_TELEA), np.uint8)


def mirrored(image: Grey8, area: Mask) -> Grey8 | None:
    """The area filled with the opposite side's tissue, seams blurred.

    The axis is the vertical through the middle of the head. None where the opposite side is the area itself or
    outside the head: a lesion on the midline, or a sagittal slice.
    """
    head = head_mask(image)
    columns = np.flatnonzero(head.any(axis=0))
    if not len(columns):
        return None
    opposite = int(columns[0] + columns[-1]) - np.arange(image.shape[1])
    inside = (opposite >= 0) & (opposite < image.shape[1])
    source = np.clip(opposite, 0, image.shape[1] - 1)
    used = area[:, source] & inside  # the opposite side, as an area
    if (used & area).any() or not inside[area.any(axis=0)].all() or not head[used].mean() > 0.8:
        return None
    seam = max(3, 2 * (image.shape[0] // 112) + 1)
    share = cv2.GaussianBlur(area.astype(np.float32), (seam, seam), 0)
    blended = image * (1 - share) + image[:, source] * share
    return np.rint(blended).astype(np.uint8)


def patch_elsewhere(image: Grey8, area: Mask, random: np.random.Generator) -> Mask | None:
    """The area moved to a random place inside the head that does not touch it; None where there is no such place."""
    head = head_mask(image)
    ys, xs = np.nonzero(area)
    targets = np.argwhere(head & ~area)
    if not len(ys) or not len(targets):
        return None
    for row, column in random.permutation(targets)[:_TRIES]:
        moved_y, moved_x = ys - round(ys.mean()) + row, xs - round(xs.mean()) + column
        if min(moved_y.min(), moved_x.min()) < 0 or max(moved_y.max(), moved_x.max()) >= image.shape[0]:
            continue
        if head[moved_y, moved_x].all() and not area[moved_y, moved_x].any():
            moved = np.zeros_like(area)
            moved[moved_y, moved_x] = True
            return moved
    return None


def head_mask(image: Grey8) -> Mask:
    """The largest bright object with its holes filled, bool `[S, S]`; empty where the image is black."""
    threshold, _ = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = (image > max(0.4 * threshold, _FLOOR)).astype(np.uint8)
    closed = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(image.shape, np.uint8)
    if outlines:
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(np.bool_)


def background(image: Grey8) -> Grey8:
    """What is outside the head; the head is black."""
    return np.where(head_mask(image), np.uint8(0), image)


def silhouette(image: Grey8) -> Grey8:
    """The outline of the head, filled with its mean grey, on black."""
    head = head_mask(image)
    mean = float(image[head].mean()) if head.any() else 0.0
    return np.where(head, np.uint8(round(mean)), np.uint8(0))


def thumbnail(image: Grey8) -> Grey8:
    """8 x 8 averages, resampled to the full size."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


HIDDEN: dict[str, Callable[[Grey8], Grey8]] = {
    "background": background,
    "silhouette": silhouette,
    "thumbnail": thumbnail,
}


def _variants(slices: Slices, rows: NDArray[np.int64], removal: Removal) -> Iterator[tuple[int, Grey8 | None]]:
    for row in rows.tolist():
        image, area = np.asarray(slices.images[row]), widened(slices.masks[row])
        if removal == "inpainted":
            yield row, inpainted(image, area)
        elif removal == "mirrored":
            yield row, mirrored(image, area)
        else:
            patch = patch_elsewhere(image, area, np.random.default_rng(row))
            yield row, None if patch is None else inpainted(image, patch)


def _thumbnails(images: Grey8) -> NDArray[np.float32]:
    size = (THUMBNAIL, THUMBNAIL)
    rows = [np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).ravel() for image in images]
    return np.stack(rows).astype(np.float32)
