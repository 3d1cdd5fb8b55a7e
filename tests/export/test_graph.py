from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from networks import SIZE, TwoLayerHead, lively
from onnx import TensorProto, numpy_helper

from export.graph import fuse_network


def as_network_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_folding_and_fusing_change_nothing_but_rounding(network, images):
    fused = fuse_network(network, SIZE, half=False)
    with torch.no_grad():
        expected = network(as_network_input(images))
        features = network.evidence(network.pyramid(network.normalise(as_network_input(images))))
        logits, cam, *_ = fused.module(torch.from_numpy(images))
        plain = fused.plain(torch.from_numpy(images))
    assert expected.abs().max() > 0.05  # not a comparison of zeros
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(plain, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(cam, network.maps(features), atol=2e-5, rtol=1e-4)


def test_no_batch_normalisation_is_left(fused):
    kinds = {type(module).__name__ for module in fused.module.modules()}
    assert not any("BatchNorm" in kind for kind in kinds)


def test_the_network_itself_is_left_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    fuse_network(network, SIZE)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_network_in_training_mode_is_refused(network):
    with pytest.raises(ValueError, match="training mode"):
        fuse_network(copy.deepcopy(network).train(), SIZE)


def test_weights_beyond_half_precision_are_refused(network):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.head.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match="beyond 65504"):
        fuse_network(broken, SIZE)


def test_maps_average_to_logits_in_the_graph(fused, engine, images):
    outputs = engine.run(images)
    assert outputs.cam.shape == (11, 4, 8, 8)
    assert np.abs(outputs.cam).max() > 0.05
    np.testing.assert_allclose(outputs.cam.mean(axis=(2, 3)) + np.array(fused.bias), outputs.logits, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_is_a_batch(engine, images, count):
    assert engine.run(images[:count]).logits.shape == (count, 4)


def test_inputs_and_outputs_are_those_of_a_bundle(graph):
    (given,) = graph.graph.input
    assert given.name == "images"
    assert given.type.tensor_type.elem_type == TensorProto.UINT8
    dimensions = given.type.tensor_type.shape.dim
    assert dimensions[0].dim_param
    assert [d.dim_value for d in dimensions[1:]] == [SIZE, SIZE, 1]
    assert [output.name for output in graph.graph.output] == [
        "logits",
        "cam",
        "layercam",
        "gradcam_plusplus",
        "principal",
    ]


def test_weights_are_stored_in_half_precision_and_what_follows_from_them_exactly(graph, fused):
    held = {name: p for name, p in fused.module.named_parameters() if p.ndim >= 2 and p.numel() >= 256}
    stored = {t.name: t for t in graph.graph.initializer}
    assert {stored[f"{name}.half"].data_type for name in held} == {TensorProto.FLOAT16}
    derived = [
        t for t in graph.graph.initializer if np.prod(t.dims) >= 256 and t.name.removesuffix(".half") not in held
    ]
    assert {t.data_type for t in derived} == {TensorProto.FLOAT}  # squares of weights underflow in half precision
    assert sum(t.ByteSize() for t in stored.values()) < 2.3 * sum(p.numel() for p in held.values()) + 4e5


def test_stored_weights_are_the_ones_that_torch_holds(graph, fused):
    """Rounded once, in torch: storing them loses nothing more."""
    halves = [numpy_helper.to_array(t) for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT16]
    held = [p.detach().numpy() for p in fused.module.parameters() if p.ndim > 1]
    for weight in halves:
        assert any(h.shape == weight.shape and np.array_equal(h, weight.astype(np.float32)) for h in held)


def test_the_graph_says_nothing_of_the_machine_that_made_it(graph):
    text = onnx.printer.to_text(graph)
    assert "/home" not in text
    assert ".py" not in graph.SerializeToString().decode("latin-1")


@pytest.mark.filterwarnings("ignore")
def test_a_two_layer_head_exports_the_gradient_to_the_target_layer(images):
    """The exported graph alone gives what pytorch-grad-cam gives with torch."""
    from networks import engine_of

    from export.onnx_file import to_onnx
    from export.parity import cam_deviation, check_parity

    torch.manual_seed(5)
    network = lively(TwoLayerHead(2))
    fused = fuse_network(network, SIZE)
    assert (fused.cam, fused.bias) == ("gradient", None)
    engine = engine_of(to_onnx(fused.module, SIZE, fused.module.names))
    images = (images * np.linspace(0, 1, len(images))[:, None, None, None]).astype(np.uint8)  # from black to bright
    checks = {check.check: check for check in check_parity(fused, engine, images)}
    assert checks["gradcam_equals_pytorch_grad_cam"].deviation <= 1e-4
    assert "completeness" not in checks
    outputs = engine.run(images)
    rest = outputs.logits - outputs.cam.mean(axis=(2, 3))
    assert np.ptp(rest, axis=0).max() > 1e-4  # no constant bias: the gradient depends on the image
    others = fuse_network(lively(TwoLayerHead(2)), SIZE)
    assert cam_deviation("gradcam", others.plain, outputs.cam, images) > 1e-2  # the check can fail
