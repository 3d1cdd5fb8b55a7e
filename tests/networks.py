"""Small networks with random weights, and the service's engine on what is exported from them."""

from __future__ import annotations

import onnx
import onnxruntime
import torch
from torch import nn

from service.engine import Engine
from training.models.network import LastMaps, Network
from training.models.oculusnet import HEAD_WIDTH, OculusNet

SIZE = 64
CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


class ShortOculusNet(OculusNet):
    """All strides, a kernel of 5 and a skip: tracing takes as long as there are layers."""

    widths = (40, 80, HEAD_WIDTH)

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.stem = _convolution(1, 16, kernel=3, stride=2)
        second, third, fourth = (list(stage) for stage in list(self.stages)[1:4])
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in (second, third[:1], fourth[:1]))
        self.last = _convolution(80, HEAD_WIDTH, kernel=1)

    def pyramid(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stages[0](self.stem(x))
        middle = self.stages[1](x)
        last = self.stages[2](middle)
        return [middle, last, self.last(last)]


class TwoLayerHead(Network):
    """A network whose explanation needs a gradient; where its feature maps come from does not matter to that."""

    widths = (64,)

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.neck = LastMaps()
        self.trunk = nn.Sequential(_convolution(1, 16, kernel=3, stride=4), _convolution(16, 64, kernel=3, stride=4))
        self.hidden = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, classes))

    def pyramid(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.trunk(x)]

    def classify(self, evidence: torch.Tensor) -> torch.Tensor:
        return self.hidden(evidence.mean(dim=(2, 3)))


def _convolution(width: int, out: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6())


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


def convolutions(network: nn.Module) -> int:
    """How many there are."""
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())


def engine_of(model: onnx.ModelProto, gradients: onnx.ModelProto | None = None) -> Engine:
    return Engine(_session(model), "cpu", _session(gradients) if gradients is not None else None)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
