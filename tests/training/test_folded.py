from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import ShortOculusNet, lively

from export.graph import fuse_network
from export.onnx_file import to_onnx
from training.models.folded import load_folded


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Path, ShortOculusNet]:
    torch.manual_seed(0)
    network = lively(ShortOculusNet(4)).eval()
    fused = fuse_network(network, 64, half=False)
    path = tmp_path_factory.mktemp("bundle") / "model.onnx"
    onnx.save(to_onnx(fused.module, 64, fused.module.names), path)
    return path, network


def test_a_network_goes_on_where_its_bundle_is(stored):
    path, network = stored
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64))).float()
    other = ShortOculusNet(4)
    load_folded(other, path, pixels)
    with torch.no_grad():
        ours, theirs = (each.eval().evidence(each.pyramid(each.normalise(pixels))) for each in (other, network))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_it_can_be_trained_from_there(stored):
    other = ShortOculusNet(4)
    load_folded(other, stored[0], torch.rand(8, 1, 64, 64) * 255)
    assert other.training
    before = {name: value.clone() for name, value in other.named_parameters()}
    other(torch.rand(8, 1, 64, 64) * 200).sum().backward()  # forward passes no longer change parameters
    for name, value in other.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_another_network_is_refused(stored):
    class Deeper(ShortOculusNet):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.last = torch.nn.Sequential(self.last, torch.nn.Conv2d(512, 512, 1))

    with pytest.raises(ValueError, match="lacks"):
        load_folded(Deeper(4), stored[0], torch.rand(8, 1, 64, 64) * 255)
