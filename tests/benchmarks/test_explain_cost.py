from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.explain_cost import predict_only
from benchmarks.harness import interleaved
from export.golden import phantoms
from service.bundle import read_bundle
from service.engine import open_graph
from service.settings import SHIPPED_MODELS


def test_the_graph_without_maps_predicts_the_same():
    bundle = read_bundle(SHIPPED_MODELS / "retinal-oct-oculusnet")
    plain = predict_only(onnx.load(bundle.graph), bundle.manifest.graph.bias)
    assert [output.name for output in plain.graph.output] == ["logits"]
    assert not [node for node in plain.graph.node if "cam" in node.output]
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    images = phantoms(224)
    expected = open_graph(bundle.graph, device="cpu").run(images).logits
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)


def test_rounds_are_interleaved_and_the_first_is_not_counted():
    order: list[str] = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, "test", pause=0)
    assert order == ["a", "b"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    "name",
    [
        "explain_cost",
        "explanation_parity",
        "explanation_quality",
        "localisation",
        "service_footprint",
        "shapley",
        "throughput",
    ],
)
def test_every_benchmark_has_help_and_writes_json(name, capsys):
    from importlib import import_module

    with pytest.raises(SystemExit, match="0"):
        import_module(f"benchmarks.{name}").main(["--help"])
    assert "--json FILE" in capsys.readouterr().out
