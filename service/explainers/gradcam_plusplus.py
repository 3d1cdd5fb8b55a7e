"""Grad-CAM++ (Chattopadhay et al., WACV 2018), in closed form."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """Feature maps weighted by their positive gradients, each by g^2 / (2 g^2 + g^3 sum(A) + 1e-6).

    The graph's output `gradcam_plusplus` holds the maps of all classes on the diagonal and of all contrasts beside it:
    a contrast's gradient is W[a, d] - W[b, d] over h * w. As in pytorch-grad-cam, on the logit and with 1e-6.

    Returns:
        float32 `[h, w]`; no unit.
    """
    maps = question.outputs.more["gradcam_plusplus"]
    return maps[target.index, target.index if target.against is None else target.against]


METHOD = Method(
    name="gradcam++",
    exact=True,
    meaning="feature maps weighted by the positive gradients of the target's logit, those of faint maps the more; "
    "its positive part is Grad-CAM++",
    source="Chattopadhay et al., WACV 2018, arXiv:1710.11063",
    explain=read_off("gradcam++", read),
    outputs=frozenset({"gradcam_plusplus"}),
    linear_head=True,
)
