"""Grad-CAM (Selvaraju et al., ICCV 2017), read off the fused graph."""

from __future__ import annotations

from service.bundle import Manifest
from service.types import Attribution, Float

METHOD = "gradcam"


def explain(cam: Float, target: int, manifest: Manifest) -> Attribution:
    """The signed map whose positive part is Grad-CAM, up to a positive factor (h * w for a pooled linear head).

    Behind global average pooling and one linear layer the gradient of a logit with respect to feature map d is
    W[c, d] / (h * w) in every cell, so Grad-CAM's weighted sum is the class activation map over h * w. The sign is
    kept: negative cells speak against the target. Where the manifest says `class_activation`, the mean of the map plus
    the target's bias is the target's logit.

    Args:
        cam: float32 `[K, h, w]`.
        target: index of the target class.
        manifest: of the bundle that made the map.
    """
    return Attribution(METHOD, manifest.class_names[target], cam[target], exact=True)
