from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from networks import engine_of
from onnx import numpy_helper

from export.parity import ParityError, cam_deviation, check_parity
from training.datasets.record import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def changed(graph: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """The graph with one stored tensor multiplied."""
    other = copy.deepcopy(graph)
    (tensor,) = [t for t in other.graph.initializer if t.name == name]
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), tensor.name))
    return other


def test_an_exported_graph_passes_every_check(fused, engine, images):
    checks = {check.check: check for check in check_parity(fused, engine, images)}
    assert set(checks) == {
        "logits_equal_torch",
        "cam_equals_torch",
        "gradcam_equals_pytorch_grad_cam",
        "completeness",
        "layercam_equals_pytorch_grad_cam",
        "gradcam_plusplus_equals_pytorch_grad_cam",
        "gradient_equals_torch",
        "batch_of_8_equals_8_calls",
    }
    assert all(0 <= check.deviation <= check.tolerance for check in checks.values())
    assert checks["logits_equal_torch"].tolerance == 1e-4
    assert checks["logits_equal_torch"].images == 11
    assert checks["batch_of_8_equals_8_calls"].images == 8


def test_a_graph_with_another_bias_is_not_the_network(fused, graph, images):
    wrong = engine_of(changed(graph, "tail.bias", 3.0))
    with pytest.raises(ParityError, match=r"logits_equal_torch.*completeness"):
        check_parity(fused, wrong, images)


def test_a_graph_with_other_map_weights_is_not_the_network(fused, graph, images):
    wrong = engine_of(changed(graph, "tail.maps.weight.half", -1.0))
    with pytest.raises(ParityError, match="gradcam_equals_pytorch_grad_cam"):
        check_parity(fused, wrong, images)


def test_deviation_from_grad_cam_grows_with_the_error(fused, engine, images):
    cam = engine.run(images).cam
    assert cam_deviation("gradcam", fused.plain, cam, images) < 1e-4
    assert cam_deviation("gradcam", fused.plain, np.roll(cam, 1, axis=3), images) > 0.1


def test_outputs_that_are_not_numbers_fail(fused, graph, images):
    wrong = engine_of(changed(graph, "tail.bias", float("nan")))
    with pytest.raises(ParityError, match="logits_equal_torch: nan"):
        check_parity(fused, wrong, images)


def test_too_few_images_prove_nothing(fused, engine, images):
    with pytest.raises(DatasetError, match="at least 8 images"):
        check_parity(fused, engine, images[:7])


def test_checking_leaves_the_module_without_gradients_hooks(fused, engine, images):
    cam_deviation("gradcam", fused.plain, engine.run(images).cam, images)
    with torch.no_grad():
        logits, *_ = fused.module(torch.from_numpy(images))
    assert not logits.requires_grad
