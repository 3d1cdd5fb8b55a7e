"""Eigen-CAM (Muhammad and Yeasin, IJCNN 2020)."""

from __future__ import annotations

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """The feature maps' first principal component: where the network responds most strongly, whatever the class.

    The graph computes it (output `principal`): the projection X v of the centred features X `[h * w, D]` on their first
    right singular vector v. A singular vector has no sign: it is chosen so that cells that respond strongly (the
    largest uncentred norm) are positive.

    Returns:
        float32 `[h, w]`; no unit.
    """
    return question.outputs.more["principal"]


METHOD = Method(
    name="eigencam",
    exact=True,
    meaning="first principal component of the feature maps; the same for every target, and no evidence for any",
    source="Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299",
    explain=read_off("eigencam", read),
    outputs=frozenset({"principal"}),
    targeted=False,
    unit="",
)
