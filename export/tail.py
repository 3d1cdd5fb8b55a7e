"""Grad-CAM without torch for heads that are not one linear layer: the gradient becomes part of the graph.

The tail (from the target layer to the logits) is traced together with the vector-Jacobian products of every logit, so
that the exported graph computes, in one forward pass,

    cam[n, c] = sum_d (sum_ij d logit[n, c] / d A[n, d, i, j]) A[n, d]

which is h w times Grad-CAM before its ReLU, and equals the class activation map where the head is linear.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx


class TargetGradients(nn.Module):
    """Feature maps float32 `[N, D, h, w]` to logits `[N, K]` and gradient-weighted maps `[N, K, h, w]`, signed."""

    def __init__(self, classify: Callable[[Tensor], Tensor], features: Tensor) -> None:
        """Trace `classify`, features to logits, and its gradients on `features` (two images or more)."""
        super().__init__()
        trace = make_fx(_with_gradients(classify), tracing_mode="symbolic", _allow_non_fake_inputs=True)
        self.traced = trace(features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Run what was traced."""
        return self.traced(features)


def _with_gradients(classify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def explain(features: Tensor) -> tuple[Tensor, Tensor]:
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            logits = classify(leaf)
            rows = [torch.autograd.grad(row.sum(), leaf, retain_graph=True)[0] for row in logits.unbind(dim=1)]
        weights = torch.stack([row.sum(dim=(2, 3)) for row in rows], dim=1)
        return logits.detach(), torch.einsum("nkd,ndhw->nkhw", weights, features)

    return explain
