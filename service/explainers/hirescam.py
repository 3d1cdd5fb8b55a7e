"""HiResCAM (Draelos and Carin, 2020), read off the fused graph."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """Gradient times activation, summed over feature maps; times h * w.

    Behind a pooled linear head the gradient is the same in every cell, so HiResCAM and Grad-CAM agree; bundles with
    another head do not offer this method, because their map holds pooled gradients only.

    Returns:
        float32 `[h, w]`, logits.
    """
    cam = question.outputs.cam
    return cam[target.index] if target.against is None else cam[target.index] - cam[target.against]


METHOD = Method(
    name="hirescam",
    exact=True,
    meaning="gradient of the target's logit times feature map, summed over maps, times h w",
    source="Draelos and Carin 2020, arXiv:2011.08891",
    explain=read_off("hirescam", read),
    linear_head=True,
    same_as="gradcam",
)
