"""A network and the images that it runs on: logits and class activation maps in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric import Fabric
from tqdm import tqdm

from service.types import Float, Grey8, Outputs
from training.augment import resized
from training.models.network import Network


@dataclass(frozen=True, slots=True)
class Runner:
    """A network on its device in float32, for one input size."""

    network: Network
    fabric: Fabric
    size: int

    def __call__(self, images: Grey8, description: str, batch: int = 32) -> Outputs:
        """Logits and class activation maps of prepared images uint8 `[N, S, S]`."""
        logits: list[Float] = []
        maps: list[Float] = []
        bar = tqdm(range(0, len(images), batch), desc=description, unit="batch", leave=False)
        with torch.inference_mode():
            for start in bar:
                rows = np.ascontiguousarray(images[start : start + batch])
                pixels = resized(self.fabric.to_device(torch.from_numpy(rows).unsqueeze(1).float()), self.size)
                evidence = self.network.evidence(self.network.pyramid(self.network.normalise(pixels)))
                logits.append(self.network.classify(evidence).cpu().numpy())
                maps.append(self.network.maps(evidence).cpu().numpy())
        return Outputs(np.concatenate(logits), np.concatenate(maps))


def make_runner(network: Network, size: int) -> Runner:
    """A runner on the best device there is, in float32 as the service computes."""
    fabric = Fabric(accelerator="auto", devices=1, precision="32-true")
    fabric.to_device(network.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    return Runner(network.eval(), fabric, size)
