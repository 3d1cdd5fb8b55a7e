"""A compact network for retinal OCT B-scans, after OculusNet.

Umair et al., "OculusNet", Front. Med. 2025, doi 10.3389/fmed.2025.1596726, gives no layer table, so this is
not their network. What a B-scan asks for: retinal layers are a few pixels thick and lesions sit on them, so
the deepest feature maps keep one cell for 16 pixels, and the last stages widen their view by 5 x 5 kernels instead of
striding. The neck brings them to one cell for 8 pixels (28 x 28 at 224). The blocks are inverted residuals without
squeeze-and-excitation, laid out as the first thirteen of EfficientNet-Lite0, so that its ImageNet weights fit.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.models.network import Network, grey_stem


class Stage(NamedTuple):
    """`repeats` inverted residual blocks; the first one strides."""

    width: int
    kernel: int
    stride: int
    expansion: int
    repeats: int


STAGES = (
    Stage(width=16, kernel=3, stride=1, expansion=1, repeats=1),
    Stage(width=24, kernel=3, stride=2, expansion=6, repeats=2),
    Stage(width=40, kernel=5, stride=2, expansion=6, repeats=2),
    Stage(width=80, kernel=3, stride=2, expansion=6, repeats=3),
    Stage(width=112, kernel=5, stride=1, expansion=6, repeats=3),
    Stage(width=192, kernel=5, stride=1, expansion=6, repeats=2),
)
STEM_WIDTH, HEAD_WIDTH = 32, 512


class OculusNet(Network):
    """Stem, six stages of inverted residuals, a 1x1 convolution, and `Network`'s neck and head."""

    widths = (40, 112, HEAD_WIDTH)

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.stem = _convolution(1, STEM_WIDTH, kernel=3, stride=2)
        blocks: list[list[nn.Module]] = []
        width = STEM_WIDTH
        for stage in STAGES:
            row: list[nn.Module] = []
            for number in range(stage.repeats):
                first = number == 0
                row.append(InvertedResidual(width, stage, stage.stride if first else 1))
                width = stage.width
            blocks.append(row)
        self.stages = nn.ModuleList(nn.Sequential(*row) for row in blocks)
        self.last = _convolution(width, HEAD_WIDTH, kernel=1)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps after a third, two thirds and all of the network; see `Network.pyramid`."""
        x = self.stem(x)
        outputs: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return [outputs[2], outputs[4], self.last(x)]

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """Take EfficientNet-Lite0's state dict; its seventh stage, last convolution and classifier are dropped."""
        if "_conv_stem.weight" not in state:
            raise ValueError("not an EfficientNet-Lite0 state dict: _conv_stem.weight is missing")
        stem = {"0.weight": grey_stem(state["_conv_stem.weight"])} | _batch_norm(state, "_bn0", "1")
        self.stem.load_state_dict(stem, strict=False)
        blocks = [block for stage in self.stages for block in stage.children()]
        for number, block in enumerate(blocks):
            prefix = f"_blocks.{number}."
            names = ["_depthwise_conv", "_project_conv"]
            norms = ["_bn1", "_bn2"]
            if f"{prefix}_expand_conv.weight" in state:
                names, norms = ["_expand_conv", *names], ["_bn0", *norms]
            new: dict[str, Tensor] = {}
            for layer, (convolution, norm) in enumerate(zip(names, norms, strict=True)):
                new[f"layers.{layer}.0.weight"] = state[f"{prefix}{convolution}.weight"]
                new |= _batch_norm(state, f"{prefix}{norm}", f"layers.{layer}.1")
            block.load_state_dict(new, strict=False)


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; with a skip where the shape allows (Sandler et al., CVPR 2018)."""

    def __init__(self, width: int, stage: Stage, stride: int) -> None:
        super().__init__()
        hidden = width * stage.expansion
        layers: list[nn.Module] = []
        if stage.expansion > 1:
            layers.append(_convolution(width, hidden, kernel=1))
        layers.append(_convolution(hidden, hidden, kernel=stage.kernel, stride=stride, groups=hidden))
        layers.append(_convolution(hidden, stage.width, kernel=1, activation=False))
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and width == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, width, H / stride, W / stride]`."""
        y = self.layers(x)
        return x + y if self.skip else y


def _convolution(
    width: int,
    out: int,
    *,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    padding = (kernel - 1) // 2
    convolution = nn.Conv2d(width, out, kernel, stride, padding, groups=groups, bias=False)
    parts: list[nn.Module] = [convolution, nn.BatchNorm2d(out, eps=1e-3, momentum=0.05)]
    return nn.Sequential(*parts, nn.ReLU6()) if activation else nn.Sequential(*parts)


def _batch_norm(state: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {f"{target}.{name}": state[f"{source}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
