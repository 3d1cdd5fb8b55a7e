"""The networks, by name. A network is one file here and one line in `NETWORKS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from training.models.network import LastMaps, Network, Opposed
from training.models.oculusnet import OculusNet
from training.models.resnet50 import ResNet50

_NO_EVIDENCE = -4.0  # logarithm of the odds of any finding where no cell has evidence, to begin with
NETWORKS: dict[str, Callable[[int], Network]] = {"resnet50": ResNet50, "oculusnet": OculusNet}


def build(name: str, classes: int, *, neck: bool = True) -> Network:
    """A new network by name.

    Args:
        name: of `NETWORKS`.
        classes: how many logits it gives.
        neck: False for one whose last feature maps are its evidence, as in bundles of before there was a neck.

    Raises:
        ValueError: no such network; the message lists those that there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}")
    network = NETWORKS[name](classes)
    if not neck:
        network.neck = LastMaps()
        network.head = nn.Linear(network.widths[-1], classes)
    return network


def build_opposed(name: str, classes: int, healthy: Sequence[int]) -> Network:
    """A new network whose healthy classes are opposed to the findings (see `Opposed`); raises as `build`.

    `settled` makes plain weights of it.
    """
    network = build(name, classes)
    if 0 < len(healthy) < classes:
        findings = [number for number in range(classes) if number not in healthy]
        nn.init.normal_(network.head.weight, 0.5, 0.1)
        nn.init.zeros_(network.head.bias)
        with torch.no_grad():
            network.head.bias[findings] = _NO_EVIDENCE - math.log(len(findings))
        parametrize.register_parametrization(network.head, "weight", Opposed(healthy, classes))
    return network


def settled(network: Network) -> Network:
    """The same network with plain weights: what is constrained in training is a value like others afterwards."""
    if parametrize.is_parametrized(network.head, "weight"):
        parametrize.remove_parametrizations(network.head, "weight")
    return network
