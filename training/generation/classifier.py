"""The small classifier of the experiment: half of a ResNet-10's width, trained for a fixed number of batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric import Fabric
from monai.networks.nets.resnet import resnet10
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from service.types import Float, Grey8
from training.augment import Augmentation, augment
from training.generation.config import ClassifierConfig
from training.models.network import GREY_MEAN, GREY_STD


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images uint8 `[N, S, S]` with class numbers int64 `[N]`."""

    images: Grey8
    labels: NDArray[np.int64]

    def first(self, count: int) -> Labelled:
        """The first ones."""
        return Labelled(self.images[:count], self.labels[:count])

    def joined(self, other: Labelled) -> Labelled:
        """These and the others."""
        return Labelled(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))


class SmallResNet(nn.Module):
    """MONAI's ResNet-10 (Chen et al., "Med3D", 2019) in two dimensions with half its feature maps, grey input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = resnet10(spatial_dims=2, n_input_channels=1, num_classes=classes, widen_factor=0.5, conv1_t_stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[N, K]`."""
        return self.net((pixels.float() * (1 / 255) - GREY_MEAN) / GREY_STD)


def train_classifier(
    data: Labelled,
    classes: int,
    config: ClassifierConfig,
    seed: int,
    *,
    augmentation: Augmentation | None,
    fabric: Fabric,
    description: str,
) -> SmallResNet:
    """Train from random weights.

    Args:
        data: what to learn from; each image is drawn as often as the others.
        classes: how many there are.
        config: of the training.
        seed: of weights, order and augmentation.
        augmentation: classical augmentation of every image, None for none.
        fabric: device and precision.
        description: what the progress bar says.

    Returns:
        The last weights, in evaluation mode: no image is needed to choose them.
    """
    torch.manual_seed(seed)
    network = SmallResNet(classes).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    model, optimiser = fabric.setup(network, optimiser)
    generator = torch.Generator().manual_seed(seed)
    order = _order(len(data.labels), config.steps * config.batch, seed)
    for rows in tqdm(order.reshape(config.steps, config.batch), desc=description, unit="batch", leave=False):
        images = _pixels(data.images[rows])
        if augmentation is not None:
            images, _ = augment(images, images, augmentation, generator)
        images = fabric.to_device(images.contiguous(memory_format=torch.channels_last))
        labels = fabric.to_device(torch.from_numpy(data.labels[rows]))
        loss = functional.cross_entropy(model(images).float(), labels, label_smoothing=config.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimiser.step()
        schedule.step()
    return network.eval()


def predict(network: SmallResNet, images: Grey8, fabric: Fabric, batch: int = 128) -> NDArray[np.int64]:
    """The most probable class of each image, int64 `[N]`."""
    return np.asarray(_run(network, images, fabric, batch).argmax(axis=1), np.int64)


def features(network: SmallResNet, images: Grey8, fabric: Fabric, batch: int = 128) -> Float:
    """The pooled features before the last layer, float32 `[N, 256]`."""
    head, network.net.fc = network.net.fc, None
    try:
        return _run(network, images, fabric, batch)
    finally:
        network.net.fc = head


def _run(network: SmallResNet, images: Grey8, fabric: Fabric, batch: int) -> Float:
    rows: list[Float] = []
    with torch.inference_mode(), fabric.autocast():
        for start in range(0, len(images), batch):
            rows.append(network(fabric.to_device(_pixels(images[start : start + batch]))).float().cpu().numpy())
    return np.concatenate(rows)


def _order(images: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Indices of all batches: whole permutations one after the other."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(images) for _ in range(-(-wanted // images))])[:wanted]


def _pixels(images: Grey8) -> Tensor:
    """uint8 `[N, S, S]` to float32 `[N, 1, S, S]`."""
    return torch.from_numpy(np.array(images)).unsqueeze(1).float()
