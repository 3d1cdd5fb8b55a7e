"""A torch module as an ONNX graph with half-precision weights."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 20
_SMALL = 256  # numbers; below, a cast costs more than it saves


def to_onnx(module: nn.Module, size: int) -> onnx.ModelProto:
    """Export a module that takes images uint8 `[N, size, size, 1]` and gives logits and cam, N free.

    Weights with two axes or more are stored in half precision and cast to float32 once, when the graph is loaded.
    """
    images = torch.zeros(2, size, size, 1, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits", "cam"],
            verbose=False,
        )
    assert program is not None  # dynamo=True without a file always returns the program  # noqa: S101
    model = program.model_proto
    _strip(model)
    _store_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of its own source lines and folders."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""


def _store_in_half(model: onnx.ModelProto) -> None:
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < _SMALL:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.half")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
