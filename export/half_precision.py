"""A graph that computes in half precision, for GPUs; it names the same stored weights and costs a few kilobytes.

From the first convolution to the trunk's feature maps everything is float16. What hangs on the feature maps stays in
float32, as in the int8 graph: it costs next to nothing, sums over thousands of channels would overflow, and the maps
add up to the logits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.onnx_file import trunk_nodes

_HALF = ".half"  # of a stored weight's name; a cast brings it to float32
_ROUNDED = ".rounded"  # of what is stored in float32 because it is small: biases, bounds


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its trunk in float16.

    Args:
        model: a bundle's graph (`export.onnx_file.to_onnx`): input `images`, outputs `logits`, `cam` and others; its
            larger weights stored in half precision behind casts.

    Returns:
        The graph with the same inputs and outputs, of the same types.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    del graph.value_info[:]  # the types are others now
    trunk = _from_first_convolution(trunk_nodes(graph))
    made = {output for node in trunk for output in node.output}
    inside = {node.output[0] for node in trunk}
    features = {name for node in graph.node if node.output[0] not in inside for name in node.input if name in made}
    entering = _rename(graph, trunk, features)
    leaving = {name: _cast(f"{name}{_HALF}", name, TensorProto.FLOAT) for name in features}
    nodes = list(_in_order(graph, trunk, entering, leaving))
    wanted = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in nodes if any(output in wanted for output in node.output)]
    read = {name for node in kept for name in node.input}
    held = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(held)
    onnx.checker.check_model(half, full_check=True)
    return half


def _from_first_convolution(nodes: list[NodeProto]) -> list[NodeProto]:
    first = next(number for number, node in enumerate(nodes) if node.op_type == "Conv")
    return nodes[first:]


def _rename(graph: onnx.GraphProto, trunk: list[NodeProto], features: set[str]) -> dict[str, NodeProto]:
    """Point the trunk's nodes to float16 tensors; returns the casts of what enters the trunk, by its name."""
    made = {output for node in trunk for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    entering: dict[str, NodeProto] = {}

    def half(name: str) -> str:
        if name in features or f"{name}{_HALF}" in stored:
            return f"{name}{_HALF}"
        if name in stored:
            return _rounded(graph, stored, name)
        if not name or name in made:
            return name
        return entering.setdefault(name, _cast(name, f"{name}{_HALF}", TensorProto.FLOAT16)).output[0]

    for node in trunk:
        inputs = [half(name) for name in node.input]
        outputs = [half(name) if name in features else name for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    return entering


def _rounded(graph: onnx.GraphProto, stored: dict[str, TensorProto], name: str) -> str:
    """A float32 initialiser's name in float16, made where there is none yet; other types keep their name."""
    if stored[name].data_type != TensorProto.FLOAT:
        return name
    new = f"{name}{_ROUNDED}"
    if new not in stored:
        values = numpy_helper.to_array(stored[name]).astype(np.float16)
        graph.initializer.append(numpy_helper.from_array(values, new))
        stored[new] = graph.initializer[-1]
    return new


def _cast(name: str, output: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [output], to=kind, name=f"cast_{output}")


def _in_order(
    graph: onnx.GraphProto,
    trunk: list[NodeProto],
    entering: dict[str, NodeProto],
    leaving: dict[str, NodeProto],
) -> Iterator[NodeProto]:
    """All nodes, the casts into the trunk before its first node, each out of it behind the node that makes it."""
    first = trunk[0].output[0]
    after = {node.input[0]: node for node in leaving.values()}
    for node in graph.node:
        if node.output[0] == first:
            yield from entering.values()
        yield node
        for output in node.output:
            if output in after:
                yield after[output]
