"""Segmentation models: what their bundle holds, and the graph that runs.

A bundle of task `segmentation` is a folder as `service.bundle` describes it, with another graph:

    model.onnx      input   images   uint8   [N, H, W, 1]         prepared pixels (see PreprocessingSpec)
                    output  mask     float32 [N, H, W]            probability 0..1 that the pixel is of the label
    golden.npz      images uint8 [M, H, W, 1]; mask float32 [M, H, W]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from service.bundle import GOLDEN, GRAPH, MANIFEST, read_manifest
from service.cuda import Session
from service.engine import GOLDEN_TOLERANCE, Provider, open_graph
from service.errors import GoldenSampleMismatch
from service.manifest import Described, Label, OperatingPoint
from service.types import Grey8, Masks

_PIECE = 8  # images in one call: feature maps at full size need much memory, and more at once is no faster
_TRUST_IN_CUDA = 5e-2  # reduced-precision convolutions (TF32) deviate more


class SegmentationManifest(Described):
    """Everything that the service and its users know of a segmentation model.

    `label` is what is outlined; a pixel belongs to it where its probability reaches the `operating_point`. `opset` and
    `weights` (as stored) are the graph's.
    """

    task: Literal["segmentation"]
    label: Label
    operating_point: OperatingPoint
    opset: int
    weights: Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A loaded graph whose bundle was verified; may be called from any thread."""

    manifest: SegmentationManifest
    session: Session
    provider: Provider

    def run(self, images: Grey8) -> Masks:
        """Masks of prepared images uint8 `[N, H, W, 1]`."""
        pieces = [images[start : start + _PIECE] for start in range(0, len(images), _PIECE)]
        found = [self.session.run(["mask"], {"images": piece})[0] for piece in pieces]
        return Masks(np.concatenate([np.asarray(mask, np.float32) for mask in found]))


def is_segmentation(path: Path) -> bool:
    """Whether the manifest in a folder says so; one that cannot be read does not."""
    try:
        content: object = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("task") == "segmentation"


def open_segmenter(path: Path, *, threads: int = 0, device: str = "auto", shared: Path | None = None) -> Segmenter:
    """Read and verify a bundle, load its graph, and check it on the golden sample, which warms it up.

    Args:
        path: the bundle's folder.
        threads: threads of one call on the CPU, 0 for one each core.
        device: `auto`, `cpu` or `cuda`.
        shared: as in `service.engine.open_engine`.

    Raises:
        BundleSchemaMismatch, BundleDigestMismatch: as `service.bundle.read_manifest`.
        GoldenSampleMismatch: this machine computes something else than the exporter did.
    """
    manifest = read_manifest(path, SegmentationManifest)
    opened = open_graph(path / GRAPH, threads=threads, device=device, sizes=(1, _PIECE), shared=shared)
    segmenter = Segmenter(manifest, opened.session, opened.provider)
    with np.load(path / GOLDEN, allow_pickle=False) as golden:
        images, expected = golden["images"], golden["mask"]
    found = segmenter.run(images).probabilities
    same = found.shape == expected.shape
    deviation = float(np.abs(found - expected).max()) if same else float("inf")
    if not deviation <= (_TRUST_IN_CUDA if opened.provider == "cuda" else GOLDEN_TOLERANCE):
        raise GoldenSampleMismatch(
            f"bundle {path.name}: the golden sample deviates by {deviation:.2g} on {opened.provider}"
        )
    return segmenter
