from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import convolutions, engine_of
from onnx import TensorProto

from export.gate import check_gate
from export.half_precision import to_half
from export.onnx_file import save_sharing_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def half(graph) -> onnx.ModelProto:
    return to_half(graph)


def test_the_trunk_computes_in_half_precision_and_what_hangs_on_it_does_not(fused, half):
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    results = {node.output[0]: node.op_type for node in half.graph.node}
    found = [name for name, kind in results.items() if kind == "Conv" and name in kinds]
    in_half = [name for name in found if kinds[name] == TensorProto.FLOAT16]
    assert len(in_half) == convolutions(fused.module.body.trunk)
    assert len(found) - len(in_half) == convolutions(fused.module.body.neck)
    assert {output.type.tensor_type.elem_type for output in half.graph.output} == {TensorProto.FLOAT}


def test_it_answers_as_the_full_graph_does_to_half_precision_and_not_better(graph, half, images):
    full, reduced = engine_of(graph).run(images), engine_of(half).run(images)
    deviation = np.abs(full.logits - reduced.logits).max() / np.abs(full.logits).max()
    assert 0 < deviation < 1e-2
    gate = check_gate(engine_of(graph), engine_of(half), images, full.logits.argmax(axis=1))
    assert gate.failures() == []


def test_maps_still_average_to_logits(fused, half, images):
    outputs = engine_of(half).run(images)
    np.testing.assert_allclose(outputs.cam.mean(axis=(2, 3)) + np.array(fused.bias), outputs.logits, atol=1e-5)


def test_its_weights_are_the_ones_that_are_stored_already(graph, half, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder, graphs in ((alone, {"model.onnx": graph}), (together, {"model.onnx": graph, "fp16.onnx": half})):
        folder.mkdir()
        save_sharing_weights(graphs, folder)
    before, after = ((folder / "weights.bin").stat().st_size for folder in (alone, together))
    assert after - before < 0.02 * before  # biases in half precision
    assert (together / "fp16.onnx").stat().st_size < 100_000


def test_the_given_graph_is_left_as_it_was(graph):
    before = graph.SerializeToString()
    to_half(graph)
    assert onnx.load_from_string(before) == graph
