"""Grad-CAM (Selvaraju et al., ICCV 2017), read off the fused graph."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """The signed map whose positive part is Grad-CAM, up to the positive factor h * w.

    Behind global average pooling and one linear layer the gradient of a logit with respect to feature map d is
    W[c, d] / (h * w) in every cell, so Grad-CAM's weighted sum is the class activation map over h * w. The sign is
    kept: negative cells speak against the target. Where the manifest says `class_activation`, the mean of the map plus
    the target's bias is the target's logit.

    Returns:
        float32 `[h, w]`, logits.
    """
    cam = question.outputs.cam
    return cam[target.index] if target.against is None else cam[target.index] - cam[target.against]


METHOD = Method(
    name="gradcam",
    exact=True,
    meaning="feature maps weighted by the mean gradient of the target's logit, times h w; positive part: Grad-CAM",
    source="Selvaraju et al., ICCV 2017, arXiv:1610.02391",
    explain=read_off("gradcam", read),
)
