"""Small networks with random weights, and the service's engine on what is exported from them."""

from __future__ import annotations

import onnx
import onnxruntime
import torch
from torch import nn

from service.engine import Engine
from training.models.oculusnet import OculusNet

SIZE = 64
CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


class ShortOculusNet(OculusNet):
    """One block for each stage but the second, which has a skip: tracing takes as long as there are layers."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.stages = nn.ModuleList(stage[: 2 if number == 1 else 1] for number, stage in enumerate(self.stages))


class TwoLayerHead(ShortOculusNet):
    """A network whose explanation needs a gradient."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.hidden = nn.Sequential(nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, classes))
        with torch.no_grad():
            self.hidden[0].weight.mul_(30)  # into tanh's bend: features of random weights are small

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.hidden(features.mean(dim=(2, 3)))


def lively(network: nn.Module) -> nn.Module:
    """Random weights and normalisation statistics that make folding matter."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.3)
    return network.eval()


def engine_of(model: onnx.ModelProto, gradients: onnx.ModelProto | None = None) -> Engine:
    return Engine(_session(model), "cpu", _session(gradients) if gradients is not None else None)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
