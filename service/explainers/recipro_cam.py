"""Recipro-CAM (Byun and Lee, CVPR workshops 2024), in closed form."""

from __future__ import annotations

import cv2
import numpy as np

from service.explainers.base import Method, Question, read_off
from service.types import Float, Target

_KERNEL = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16


def read(question: Question, target: Target) -> Float:
    """What the target's probability becomes if only one cell of the feature maps (its neighbours fainter) is left.

    Behind global average pooling and one linear layer, features masked by the 3 x 3 kernel k around a cell give the
    logits (k * cam) / (h w) + b: no further pass is needed. From it the probability of empty feature maps is taken, so
    that a cell without a say is 0; the reference leaves it in and scales it away.

    Returns:
        float32 `[h, w]`, change of probability (of the uncalibrated softmax), -1..1.
    """
    cam, logits = question.outputs.cam, question.outputs.logits
    bias = logits - cam.mean(axis=(1, 2))
    cells = cam.shape[1] * cam.shape[2]
    smoothed = [cv2.filter2D(each, cv2.CV_32F, _KERNEL, borderType=cv2.BORDER_CONSTANT) for each in cam]
    masked = np.stack([np.asarray(each, np.float32) for each in smoothed]) / cells + bias[:, None, None]
    change = _softmax(masked) - _softmax(bias[:, None, None])
    return change[target.index] if target.against is None else change[target.index] - change[target.against]


def _softmax(logits: Float) -> Float:
    """Over the first axis."""
    raised = np.exp(logits - logits.max(axis=0))
    return raised / raised.sum(axis=0)


METHOD = Method(
    name="recipro-cam",
    exact=True,
    meaning="what a cell of the feature maps alone does to the target's probability",
    unit="probability",
    source="Byun and Lee, CVPR workshops 2024, arXiv:2209.14074",
    explain=read_off("recipro-cam", read),
    linear_head=True,
)
