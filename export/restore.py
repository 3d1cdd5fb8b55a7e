"""A bundle's network in torch again: what is stored is enough to make every graph anew, without the checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from export.familiarity import familiarity_of
from export.graph import ClassActivation, Fused, fuse_network
from service.bundle import Bundle
from service.manifest import Manifest
from training.models import build
from training.models.folded import has_neck, stored_tensors
from training.models.network import Network
from training.models.shapley_head import ShapleyHead


class CannotRestore(Exception):
    """The bundle's graph is not one that its network is known to give."""


def restore(bundle: Bundle, shapley: nn.Module | None = None, gate: nn.Module | None = None) -> Fused:
    """The fused network with the weights that the bundle stores.

    Args:
        bundle: of a network with a linear head.
        shapley: FastSHAP's explainer to put on it; None keeps the one that is there, if any.
        gate: scores of familiarity to put on it; None likewise.

    Raises:
        CannotRestore: another head, or tensors that do not fit the network.
    """
    if bundle.manifest.graph.cam != "class_activation":
        raise CannotRestore("only networks with a linear head can be restored from their graph; export the checkpoint")
    stored = {
        name.replace("body.network.", "body.trunk.network."): tensor  # as they were called before there was a neck
        for name, tensor in stored_tensors(bundle.graph).items()
    }
    network = network_of(bundle).eval()
    if shapley is None and any(name.startswith("shapley.") for name in stored):
        shapley = new_head(network, bundle.manifest)
        shapley.load_state_dict({name[8:]: t for name, t in stored.items() if name.startswith("shapley.")})
    if gate is None and bundle.manifest.gate is not None:
        gate = familiarity_of({name[5:]: t for name, t in stored.items() if name.startswith("gate.")})
    stored |= {f"gate.{name}": t for name, t in gate.state_dict().items()} if gate is not None else {}
    fused = fuse_network(network, bundle.manifest.preprocessing.size, shapley=shapley, gate=gate)
    wanted = {name for name in fused.module.state_dict() if not name.startswith("shapley.")}
    missing = sorted(wanted - set(stored))
    if missing:
        raise CannotRestore(f"the graph lacks {len(missing)} tensors of the network, first {missing[0]}")
    fused.module.load_state_dict({name: stored[name] for name in wanted}, strict=False)
    tail, head = fused.module.tail, fused.plain.network.head
    assert isinstance(tail, ClassActivation)  # noqa: S101 - the manifest says so
    with torch.no_grad():
        head.weight.copy_(tail.maps.weight[:, :, 0, 0])
        head.bias.copy_(tail.bias)
    return Fused(fused.module, fused.plain, fused.cam, tuple(tail.bias.tolist()))


def network_of(bundle: Bundle) -> Network:
    """A new network of the bundle's kind, its weights random."""
    manifest = bundle.manifest
    return build(manifest.provenance.network, len(manifest.labels), neck=has_neck(stored_tensors(bundle.graph)))


def new_head(network: Network, manifest: Manifest) -> ShapleyHead:
    """An untrained explainer that fits a bundle's network."""
    return ShapleyHead(network.head.in_features, len(manifest.labels), manifest.graph.grid[0])
