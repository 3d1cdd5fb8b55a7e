"""Networks whose normalisation was folded into their convolutions: what bundles store, made trainable again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from training.models.network import Network


def stored_tensors(graph: Path) -> dict[str, Tensor]:
    """The weights that an exported graph names, float32, by the names of the exported module's parameters."""
    arrays = {t.name.removesuffix(".half"): numpy_helper.to_array(t) for t in onnx.load(graph).graph.initializer}
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in arrays.items()}


def load_folded(network: Network, graph: Path, pixels: Tensor) -> None:
    """Take a bundle's trunk, and its neck where it has one; the head stays as it is.

    Each normalisation is set to what the images give, so that the network computes what the bundle's does.

    Args:
        network: changed in place.
        graph: `model.onnx` of a bundle of the same network.
        pixels: prepared images, float `[N, 1, H, W]`, 0..255, some dozens.

    Raises:
        ValueError: the graph is not of this network.
    """
    stored = stored_tensors(graph)
    found = {_own_name(name): tensor for name, tensor in stored.items()}
    body = _Body(network, neck=has_neck(stored))
    pairs = _pairs(body)
    names = [name for name, module in body.named_modules() if isinstance(module, nn.BatchNorm2d)]
    skipped = ("network.head.",) if body.neck else ("network.head.", "network.neck.")
    norms = [name for name in names if not name.startswith(skipped)]
    plain = {
        name: parameter
        for name, parameter in body.named_parameters()
        if not name.startswith((*skipped, *(f"{norm}." for norm in norms)))
    }
    biases = {norm: f"{pairs[norm]}.bias" for norm in norms if norm in pairs}
    missing = sorted((set(plain) | set(biases.values())) - set(found))
    if missing:
        raise ValueError(f"the graph lacks {len(missing)} tensors of the network, first {missing[0]}")
    hooks = [
        body.get_submodule(norm).register_forward_pre_hook(_adding(found[biases[norm]] if norm in biases else None))
        for norm in norms
    ]
    training = network.training
    with torch.no_grad():
        for name, value in plain.items():
            value.copy_(found[name])
        body.eval()(network.normalise(pixels))
    network.train(training)
    for hook in hooks:
        hook.remove()


def has_neck(stored: Iterable[str]) -> bool:
    """Whether names of stored tensors are those of a network with a neck."""
    return any(name.startswith("body.neck.") for name in stored)


def _own_name(stored: str) -> str:
    """The name below `network` of what an exported module calls otherwise."""
    name = stored.removeprefix("body.").removeprefix("trunk.")
    return f"network.{name}" if name.startswith("neck.") else name


class _Body(nn.Module):
    """A network up to its evidence maps, or to its last feature maps where it is to have no neck."""

    def __init__(self, network: Network, *, neck: bool) -> None:
        super().__init__()
        self.network, self.neck = network, neck

    def forward(self, x: Tensor) -> Tensor:
        """Run on normalised pixels."""
        pyramid = self.network.pyramid(x)
        return self.network.evidence(pyramid) if self.neck else pyramid[-1]


def _pairs(body: nn.Module) -> dict[str, str]:
    """Names of normalisations, and of the convolutions that they follow at once."""
    modules = dict(body.named_modules())
    found: dict[str, str] = {}
    for node in fx.symbolic_trace(body).graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, fx.Node) and source.op == "call_module":
            before, after = str(source.target), str(node.target)
            if isinstance(modules[before], nn.Conv2d) and isinstance(modules[after], nn.BatchNorm2d):
                found[after] = before
    return found


def _adding(bias: Tensor | None) -> Callable[[nn.Module, tuple[Tensor]], None]:
    """A hook that makes a normalisation add `bias` (None: nothing), with the statistics of what reaches it."""

    def settle(module: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
        scale = (variance + cast(nn.BatchNorm2d, module).eps).sqrt()
        values = {
            "running_mean": mean,
            "running_var": variance,
            "weight": scale,
            "bias": mean if bias is None else mean + bias,
        }
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        for name, value in values.items():
            state[name].copy_(value)

    return settle
