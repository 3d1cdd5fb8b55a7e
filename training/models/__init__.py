"""The networks, by name. A network is one file here and one line in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable

from training.models.network import Network
from training.models.oculusnet import OculusNet
from training.models.resnet50 import ResNet50

NETWORKS: dict[str, Callable[[int], Network]] = {"resnet50": ResNet50, "oculusnet": OculusNet}


def build(name: str, classes: int) -> Network:
    """A new network by name.

    Raises:
        ValueError: no such network; the message lists those that there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](classes)
