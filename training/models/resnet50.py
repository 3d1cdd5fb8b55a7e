"""ResNet-50 (He et al., CVPR 2016), torchvision's, for one grey channel."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from training.models.network import Network, grey_stem


class ResNet50(Network):
    """torchvision's `resnet50` with a one-channel stem; parameter names are torchvision's below `trunk`."""

    widths = (512, 1024, 2048)

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        trunk = torchvision.models.resnet50(weights=None, zero_init_residual=True)
        trunk.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(trunk.conv1.weight, mode="fan_out", nonlinearity="relu")
        trunk.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        self.trunk = trunk

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps after a third, two thirds and all of the network; see `Network.pyramid`."""
        trunk = self.trunk
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
        fine = trunk.layer2(trunk.layer1(x))
        middle = trunk.layer3(fine)
        return [fine, middle, trunk.layer4(middle)]

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """Take a torchvision or RadImageNet state dict, whatever prefix its keys have; its classifier is dropped."""
        wanted = self.trunk.state_dict()
        suffixes = {
            name: tensor
            for key, tensor in state.items()
            for name in [key.removeprefix("module.").removeprefix("backbone.")]
        }
        found = {name: suffixes[name] for name in wanted if name in suffixes}
        missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(f"not a ResNet-50 state dict: {len(missing)} tensors missing, first {missing[0]}")
        if found["conv1.weight"].shape[1] == 3:
            found["conv1.weight"] = grey_stem(found["conv1.weight"])
        self.trunk.load_state_dict(found, strict=False)
