"""An int8 graph for the CPU.

Static quantisation in QDQ form: weights int8 a channel, activations uint8, ranges from real images. Activations are
unsigned and weights signed because that is the product that AVX-512 VNNI computes in one instruction. AVX2 adds pairs
of such products in 16 bits, which saturate; weights of 7 bits leave them room, so that every processor computes the
same. Depthwise convolutions, which need their bits most, multiply in 16 bits everywhere and keep 8. Neck and
head stay in float32: they cost next to nothing, and the maps stay smooth and add up to the logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from export.onnx_file import trunk_nodes
from service.types import Grey8

_BATCH = 8


class _Reader(CalibrationDataReader):
    def __init__(self, images: Grey8) -> None:
        bar = tqdm(range(0, len(images), _BATCH), desc="calibrating", unit="batch", leave=False)
        self._batches: Iterator[dict[str, Grey8]] = iter({"images": images[i : i + _BATCH]} for i in bar)

    def get_next(self) -> dict[str, Grey8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self._batches, None)


def quantize(model: onnx.ModelProto, calibration: Grey8) -> onnx.ModelProto:
    """Quantise everything up to the trunk's feature maps.

    Args:
        model: a bundle's graph with its weights: input `images`, outputs `logits`, `cam` and others.
        calibration: prepared images uint8 `[N, H, W, 1]`, not of the test part.

    Returns:
        The graph with the same inputs and outputs; weights in int8.
    """
    full = onnx.ModelProto()
    full.CopyFrom(model)
    _widen(full)
    _reshape_channel(full)
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, done = (Path(folder) / name for name in ("plain.onnx", "prepared.onnx", "done.onnx"))
        onnx.save(full, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        whole = onnx.load(prepared)
        quantize_static(
            prepared,
            done,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=_trunk(whole),
            extra_options={"TensorQuantOverrides": _depthwise(whole)},
        )
        return onnx.load(done)


def _widen(model: onnx.ModelProto) -> None:
    """Half-precision initialisers behind a cast become float32 ones."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for node in casts:
        tensor = stored[node.input[0]]
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
            graph.node.remove(node)


def _reshape_channel(model: onnx.ModelProto) -> None:
    """The channel axis of length one is moved by a reshape.

    ONNX Runtime would push a transpose behind the normalisation, whose constants then meet a last axis of length one,
    and compute it number by number: up to a quarter of the time of a small network.
    """
    graph = model.graph
    _, height, width, channels = (axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim)
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] == graph.input[0].name and channels == 1:
            shape = numpy_helper.from_array(np.array([-1, 1, height, width], np.int64), f"{node.output[0]}.shape")
            graph.initializer.append(shape)
            node.CopyFrom(helper.make_node("Reshape", [node.input[0], shape.name], node.output, node.name))


def _trunk(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that are quantised."""
    return sorted(node.name for node in trunk_nodes(model.graph) if node.op_type in _QUANTISED)


def _depthwise(model: onnx.ModelProto) -> dict[str, list[dict[str, int | bool]]]:
    """All 8 bits, a channel, for the weights of convolutions with one channel in and out a group."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    groups = {
        node.input[1]: helper.get_node_attr_value(node, "group")
        for node in model.graph.node
        if node.op_type == "Conv" and any(attribute.name == "group" for attribute in node.attribute)
    }
    names = [name for name, group in groups.items() if group > 1 and shapes.get(name, ())[:2] == (group, 1)]
    return {name: [{"axis": 0, "reduce_range": False}] for name in names}


# With the activations, whose bounds become those of the quantised convolution and cost nothing.
_QUANTISED = {"Conv", "Add", "MaxPool", "Relu", "Clip"}
