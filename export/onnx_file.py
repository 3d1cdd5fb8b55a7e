"""Torch modules as ONNX graphs that share one file of half-precision weights."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import StringStringEntryProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from service.bundle import WEIGHTS

OPSET = 20
NECK = "body.neck."  # how the names of its weights begin
_SMALL = 256  # numbers; below, a cast or a place in the file costs more than it saves
_ALIGNMENT = 64  # bytes


def to_onnx(module: nn.Module, size: int, more: Sequence[str] = ()) -> onnx.ModelProto:
    """Export a module that takes images uint8 `[N, size, size, 1]` and gives logits, cam and `more`, N free.

    Weights with two axes or more that half precision holds exactly are stored in it, and cast to float32 once, when
    the graph is loaded.
    """
    images = torch.zeros(2, size, size, 1, dtype=torch.uint8)
    return trace(module, {"images": images}, ["logits", "cam", *more])


def trace(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """Export a module with named inputs and outputs, whose first axis is free."""
    batch = torch.export.Dim("N")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None  # dynamo=True without a file always returns the program  # noqa: S101
    model = program.model_proto
    _strip(model)
    _store_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def save_sharing_weights(models: Mapping[str, onnx.ModelProto], folder: Path) -> None:
    """Write graphs whose larger tensors lie in one file, equal ones once (ONNX external data).

    Args:
        models: graphs by file name.
        folder: where to.
    """
    places: dict[str, tuple[int, int]] = {}
    with (folder / WEIGHTS).open("wb") as file:
        for name, model in models.items():
            written = onnx.ModelProto()
            written.CopyFrom(model)
            for tensor in written.graph.initializer:
                if np.prod(tensor.dims) < _SMALL:
                    continue
                content = numpy_helper.to_array(tensor).tobytes()
                key = hashlib.sha256(content).hexdigest()
                if key not in places:
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                    places[key] = (file.tell(), len(content))
                    file.write(content)
                _point(tensor, *places[key])
            onnx.save(written, folder / name)


def trunk_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes from the image to the trunk's feature maps, in order, without the casts of stored weights.

    They are what `cam` is computed from, but for what follows the weights of the neck, where there is one.
    """
    stored = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if not set(node.input) <= stored]
    behind: set[str] = set()
    for node in graph.node:
        if any(name in behind or name.startswith(NECK) for name in node.input):
            behind |= set(node.output)
    makers = {output: node for node in nodes for output in node.output}
    waiting = [node.input[0] for node in nodes if "cam" in node.output]
    found, seen = set[str](), set[str]()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            waiting += node.input
            found |= {node.output[0]} - behind
    return [node for node in nodes if node.output[0] in found]


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": WEIGHTS, "offset": str(offset), "length": str(length)}.items():
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of its own source lines and folders."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    graph = model.graph
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    del graph.metadata_props[:]
    model.doc_string = ""


def _store_in_half(model: onnx.ModelProto) -> None:
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < _SMALL:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        if (stored != values).any():  # what the exporter computed from weights
            continue
        half = numpy_helper.from_array(stored, f"{name}.half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
