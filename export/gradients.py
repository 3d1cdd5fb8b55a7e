"""The gradient of any logit, or of any sum of them, by the pixels: as a graph that stock ONNX Runtime runs.

The forward pass is traced together with its vector-Jacobian product. Of the operators that reverse mode leaves behind
two have no ONNX counterpart, and a third one that adds in no fixed order; they are written in others:

- the gradient of a convolution by its input is a convolution with the kernel turned round and its channels swapped
  (a transposed convolution where it strides);
- the gradient of max pooling is a scatter-add of what comes back to where the maxima were;
- bilinear resampling is two products with matrices, and so is its gradient.

Where an activation let nothing through, nothing comes back. ONNX Runtime keeps convolutions in blocks of channels and
leaves that layout for a comparison and a choice; a hard sigmoid as steep as a step, and a product, stay in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from export.graph import Explained
from export.onnx_file import trace
from training.models.network import Neck, upsample


class _FromPixels(nn.Module):
    """Pixels float32 `[N, H, W, 1]` to logits `[N, K]`."""

    def __init__(self, module: Explained) -> None:
        super().__init__()
        self.body, self.tail = module.body, module.tail

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tail(self.body(pixels))[0]


def gradient_graph(module: Explained, size: int) -> onnx.ModelProto:
    """Trace the gradient.

    Args:
        module: a fused network; its parameters are not changed.
        size: side of the input in pixels.

    Returns:
        A graph from pixels float32 `[N, size, size, 1]` and weights float32 `[N, K]` to the gradient float32
        `[N, size, size, 1]` of the sum of weights times logits.
    """
    network = _FromPixels(module)
    pixels = torch.rand(2, size, size, 1) * 255
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def gradient(pixels: Tensor, weights: Tensor) -> Tensor:
        pull_back = torch.func.vjp(network, pixels)[1]
        return pull_back(weights)[0]

    with _traceable(module.body.neck, wanted), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecations
        weights = torch.rand_like(network(pixels))
        traced = make_fx(
            gradient, decomposition_table=_DECOMPOSITIONS, tracing_mode="symbolic", _allow_non_fake_inputs=True
        )(pixels, weights)
    return trace(traced, {"pixels": pixels, "weights": weights}, ["gradient"])


@contextmanager
def _traceable(neck: nn.Module, parameters: Sequence[nn.Parameter]) -> Generator[None]:
    """Make parameters constants and have a neck resample by matrices, until the end of the block."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    if isinstance(neck, Neck):
        neck.upsample = _ByMatrices()
    try:
        yield
    finally:
        if isinstance(neck, Neck):
            neck.upsample = upsample
        for parameter in parameters:
            parameter.requires_grad_(True)


def _convolution_backward(
    back: Tensor,
    x: Tensor,
    kernel: Tensor,
    bias: object,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor, None, None]:
    """The gradient by the input alone; the weights are constants."""
    if transposed or any(d != 1 for d in dilation) or wanted[1] or wanted[2]:
        raise NotImplementedError("only the gradient of an undilated convolution by its input is written here")
    sides = kernel.shape[2:]
    if all(s == 1 for s in stride) and groups in (1, len(kernel)):
        swapped = kernel.transpose(0, 1) if groups == 1 else kernel
        turned = swapped if all(side == 1 for side in sides) else swapped.flip(2, 3)
        kept = [side - 1 - p for side, p in zip(sides, padding, strict=True)]
        return torch.conv2d(back, turned, None, 1, kept, 1, groups), None, None
    whole = all(int(side) % s == 0 for side, s in zip(x.shape[2:], stride, strict=True))
    if whole and all(side == 1 for side in sides) and groups == 1 and padding == [0, 0]:
        return _spread(torch.conv2d(back, kernel.transpose(0, 1)), stride, x), None, None
    extra = [
        int(x.shape[2 + i]) - ((int(back.shape[2 + i]) - 1) * stride[i] - 2 * padding[i] + sides[i]) for i in (0, 1)
    ]
    return torch.conv_transpose2d(back, kernel, None, stride, padding, extra, groups), None, None


def _spread(x: Tensor, stride: list[int], like: Tensor) -> Tensor:
    """`x` at every `stride`-th place of the last two axes of `like`, 0 elsewhere."""
    places = torch.zeros(like.shape[2:])
    places[:: stride[0], :: stride[1]] = 1
    repeated = torch.ops.aten.upsample_nearest2d.vec(x, None, [float(s) for s in stride])
    return torch.ops.aten.max_pool2d(repeated * places, [1, 1])  # pooling takes nothing away; it brings the layout back


def _max_pool_backward(
    back: Tensor,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    empty = torch.zeros((x.shape[0], x.shape[1], x.shape[2] * x.shape[3]))
    return empty.scatter_add(2, indices.flatten(2), back.flatten(2)).reshape(x.shape)


def _step(x: Tensor, *, falls_at: float | None = None) -> Tensor:
    """1 where x is positive (at least 2^-100), otherwise 0; with `falls_at`, 1 where x lies below it, otherwise 0."""
    steep = 2.0**100  # a power of two: its product with `falls_at` is exact
    alpha, beta = (steep, 0.0) if falls_at is None else (-steep, steep * falls_at)
    attributes: dict[str, Any] = {"alpha": alpha, "beta": beta}
    return torch.onnx.ops.symbolic("HardSigmoid", [x], attributes, dtype=x.dtype, shape=x.shape, version=6)


def _relu_backward(back: Tensor, result: Tensor, threshold: float) -> Tensor:
    if threshold != 0:
        raise NotImplementedError("only the gradient of a threshold at 0 is written here")
    return back * _step(result)


def _hardtanh_backward(back: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    if low != 0:
        raise NotImplementedError("only the gradient of a range that starts at 0 is written here")
    result = torch.ops.aten.hardtanh.default(x, low, high)  # the forward pass's own: written once in the graph
    return back * (_step(result) * _step(result, falls_at=high))


def _softplus_backward(back: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    return back * torch.sigmoid(x * beta)


class _ByMatrices:
    """Bilinear resampling as two products with matrices, whose gradients are such products again.

    What reverse mode makes of torch's own is a scatter-add, and ONNX Runtime adds in no fixed order.
    """

    def __init__(self) -> None:
        self._matrices: dict[tuple[int, int], Tensor] = {}

    def __call__(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        rows, columns = (self._matrix(int(b), int(a)) for b, a in zip(features.shape[2:], grid, strict=True))
        return rows.transpose(0, 1) @ features @ columns

    def _matrix(self, before: int, after: int) -> Tensor:
        """Say how much each of `before` values gives to each of `after`, float32 `[before, after]`."""
        if (before, after) not in self._matrices:
            each = torch.eye(before)[None]
            self._matrices[before, after] = nn.functional.interpolate(each, size=after, mode="linear")[0]
        return self._matrices[before, after]


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    torch.ops.aten.threshold_backward.default: _relu_backward,
    torch.ops.aten.hardtanh_backward.default: _hardtanh_backward,
    torch.ops.aten.softplus_backward.default: _softplus_backward,
}
