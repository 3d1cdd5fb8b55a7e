from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import convolutions, engine_of
from onnx import TensorProto

from export.gate import Gate, check_gate
from export.quantize import quantize

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def quantised(graph, images):
    return quantize(graph, images)


def test_the_trunk_is_int8_and_what_hangs_on_it_is_not(fused, graph, quantised):
    kinds = {t.name: t.data_type for t in quantised.graph.initializer}
    weights = [name for name in kinds if name.startswith("body") and name.endswith("weight_quantized")]
    assert {kinds[name] for name in weights} == {TensorProto.INT8}
    assert len(weights) == convolutions(fused.module.body.trunk)
    assert [output.name for output in quantised.graph.output] == [output.name for output in graph.graph.output]
    assert not any(kinds[name] == TensorProto.INT8 for name in kinds if name.startswith(("tail", "body.neck")))
    before, after = (
        sum(t.ByteSize() for t in model.graph.initializer if t.name.startswith("body.trunk"))
        for model in (graph, quantised)
    )
    assert after < 0.8 * before
    neck = sum(t.ByteSize() for t in quantised.graph.initializer if t.name.startswith("body.neck"))
    assert len(quantised.SerializeToString()) - neck < len(graph.SerializeToString())  # nor is a copy kept elsewhere


def test_maps_still_average_to_logits_and_follow_the_full_ones(fused, graph, quantised, images):
    outputs = engine_of(quantised).run(images)
    np.testing.assert_allclose(outputs.cam.mean(axis=(2, 3)) + np.array(fused.bias), outputs.logits, atol=1e-5)
    gate = check_gate(engine_of(graph), engine_of(quantised), images, outputs.logits.argmax(axis=1))
    assert gate.map_correlation > 0.9
    assert gate.accuracy == 1


def test_a_graph_agrees_with_itself_and_not_with_other_labels(engine, images):
    labels = engine.run(images).logits.argmax(axis=1)
    assert check_gate(engine, engine, images, labels) == Gate(1.0, 1.0, 1.0, pytest.approx(1.0))
    assert check_gate(engine, engine, images, (labels + 1) % 4).accuracy == 0


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Gate(0.95, 0.9449, 1, 1), "accuracy falls"),
        (Gate(0.95, 0.95, 0.989, 1), "labels agree"),
        (Gate(0.95, 0.95, 1, 0.979), "correlate"),
        (Gate(0.95, 0.95, 1, float("nan")), "correlate"),
    ],
)
def test_each_part_of_the_gate_can_fail(gate, words):
    (failure,) = gate.failures()
    assert words in failure


def test_the_given_graph_is_left_as_it_was(graph, images):
    before = graph.SerializeToString()
    quantize(graph, images[:4])
    assert onnx.load_from_string(before) == graph
