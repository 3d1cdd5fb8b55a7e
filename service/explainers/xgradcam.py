"""XGrad-CAM (Fu et al., BMVC 2020), read off the fused graph."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """Feature maps weighted by their mean gradient, each cell's weighted by its share of the map's activation.

    Behind a pooled linear head the gradient is the same in every cell, the shares sum to one, and the weights are
    Grad-CAM's: the two maps agree (the reference adds 1e-7 to a denominator; they differ by that much).

    Returns:
        float32 `[h, w]`, logits, times h * w.
    """
    cam = question.outputs.cam
    return cam[target.index] if target.against is None else cam[target.index] - cam[target.against]


METHOD = Method(
    name="xgradcam",
    exact=True,
    meaning="feature maps weighted by the activation-weighted gradient of the target's logit, times h w",
    source="Fu et al., BMVC 2020, arXiv:2008.02312",
    explain=read_off("xgradcam", read),
    linear_head=True,
    same_as="gradcam",
)
