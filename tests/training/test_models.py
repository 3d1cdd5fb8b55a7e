from __future__ import annotations

import pytest
import torch
import torchvision

from training.models import NETWORKS, build
from training.models.network import summary_of
from training.models.oculusnet import OculusNet
from training.models.resnet50 import ResNet50


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_maps_and_logits_belong_together(name):
    network = build(name, 4).eval()
    pixels = torch.randint(0, 256, (2, 1, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        features = network.pyramid(network.normalise(pixels))
        evidence = network.evidence(features)
        maps = network.maps(evidence)
        logits = network(pixels)
    assert [f.shape[1] for f in features] == list(network.widths)
    assert evidence.min() >= 0
    assert evidence.shape[-2:] == (12, 12)
    assert summary_of(features).shape == (2, sum(network.widths[-2:]) + network.widths[-1])
    assert torch.allclose(maps.mean(dim=(2, 3)) + network.head.bias, logits, atol=1e-5)


def test_oculusnet_is_compact_and_keeps_a_fine_map():
    network = build("oculusnet", 4).eval()
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 3e6
    with torch.inference_mode():
        assert network.pyramid(torch.zeros(1, 1, 224, 224))[-1].shape[-2:] == (14, 14)


def test_an_unknown_network_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="oculusnet, resnet50"):
        build("resnet18", 4)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_resnet50_starts_from_a_torchvision_state_dict(prefix):
    source = torchvision.models.resnet50(weights=None).eval()
    network = ResNet50(4).eval()
    network.load_initial({f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()})
    grey = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        ours = network.pyramid(grey)[-1].mean(dim=(2, 3))
        theirs = torch.nn.Sequential(*list(source.children())[:-1])(grey.expand(-1, 3, -1, -1)).flatten(1)
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("network", [ResNet50(2), OculusNet(2)])
def test_a_foreign_state_dict_is_refused(network):
    with pytest.raises(ValueError, match="state dict"):
        network.load_initial({"weight": torch.zeros(1)})
