"""Eigen-CAM (Muhammad and Yeasin, IJCNN 2020)."""

from __future__ import annotations

import numpy as np

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target


def read(question: Question, target: Target) -> Float:
    """The feature maps' first principal component: where the network responds most strongly, whatever the class.

    With X `[h * w, D]` the centred features, the projection X v on the first right singular vector is the first
    eigenvector of the Gram matrix X X^T times the root of its eigenvalue; the graph's output `gram` holds that matrix
    `[h * w, h * w]`. A singular vector has no sign: it is chosen so that cells that respond strongly (the largest
    uncentred norm, the output `strength` `[h * w]`) are positive.

    Returns:
        float32 `[h, w]`; no unit.
    """
    gram = question.outputs.more["gram"].astype(np.float64)
    strength = question.outputs.more["strength"].astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    component = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
    sign = 1.0 if float(component @ (strength - strength.mean())) >= 0 else -1.0
    return (sign * component).reshape(question.outputs.cam.shape[-2:]).astype(np.float32)


METHOD = Method(
    name="eigencam",
    exact=True,
    meaning="first principal component of the feature maps; the same for every target, and no evidence for any",
    source="Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299",
    explain=read_off("eigencam", read),
    outputs=frozenset({"gram", "strength"}),
    targeted=False,
    unit="",
)
