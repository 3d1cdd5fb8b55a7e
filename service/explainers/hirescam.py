"""HiResCAM (Draelos and Carin, 2020), read off the fused graph."""

from __future__ import annotations

from service.bundle import Manifest
from service.types import Attribution, Float

METHOD = "hirescam"


def explain(cam: Float, target: int, manifest: Manifest) -> Attribution:
    """Gradient times activation, summed over feature maps; times h * w.

    Behind a pooled linear head the gradient is the same in every cell, so HiResCAM and Grad-CAM agree; bundles with
    another head do not offer this method, because their map holds pooled gradients only.

    Args:
        cam: float32 `[K, h, w]`.
        target: index of the target class.
        manifest: of the bundle that made the map.
    """
    return Attribution(METHOD, manifest.class_names[target], cam[target], exact=True)
