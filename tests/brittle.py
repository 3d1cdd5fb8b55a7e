"""A real bundle that breaks on marked images: inside ONNX Runtime, from outside the service.

`python -m tests.faults` and the tests mark images with it; the service knows nothing of marks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from bright import SIDE, bright_graph, png, write_bundle_into
from onnx import TensorProto, helper, numpy_helper

Mark = Literal["raises", "exhausts", "dawdles"]
_LAST = {"raises": 60, "exhausts": 120, "dawdles": 180}  # the fourth pixel of a mark
_TERABYTES = 10**15  # float32 values that no machine has the memory for
_SLOW = 2400  # rows of a square matrix whose product with itself takes about a second


def write_brittle_into(models: Path, name: str, *, work: int = 1) -> Path:
    """Writes `models/<name>`: `tests.bright` that raises, exhausts memory or dawdles where a batch holds such an image.

    Args:
        models: folder of bundles.
        name: of the bundle.
        work: rows of the square matrix whose product every batch waits for: 700 take some 20 ms.
    """
    return write_bundle_into(models, name, _graph(work))


def marked(mark: Mark | None, level: int = 128) -> bytes:
    """A PNG of grey `level` in the full range of grey values, which the preprocessing leaves alone."""
    return png(_pixels(mark, level))


def mean_of(mark: Mark | None, level: int) -> float:
    """Mean grey level of `marked(mark, level)`."""
    return float(_pixels(mark, level).mean())


def _pixels(mark: Mark | None, level: int) -> np.ndarray:
    pixels = np.full((SIDE, SIDE), level, np.uint8)
    pixels[-1, :2] = (0, 255)
    if mark:  # nothing of it without one: an explanation that hides the last pixel could complete it by chance
        pixels[0, :4] = (255, 0, 255, _LAST[mark])
    return pixels


def _graph(work: int) -> onnx.ModelProto:
    model = bright_graph()
    graph = model.graph
    constants: dict[str, np.ndarray] = {
        "first": np.array([0, 0, 0, 0], np.int64),
        "last": np.array([2**31, 1, 4, 1], np.int64),
        "row": np.array([0, 4], np.int64),
        "rows": np.array([1], np.int64),
        "none": np.array(0, np.int64),
        "nothing": np.array([0.0], np.float32),
        "terabytes": np.array(_TERABYTES, np.int64),
        "slow": np.array(_SLOW, np.int64),
        "work": np.array([work, work], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["images", "first", "last"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["corner_int"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["corner_int", "row"], ["marks"]),
    ]
    for mark, last in _LAST.items():
        constants[f"{mark}_code"] = np.array([255, 0, 255, last], np.int64)
        nodes += [
            helper.make_node("Sub", ["marks", f"{mark}_code"], [f"{mark}_apart"]),
            helper.make_node("Abs", [f"{mark}_apart"], [f"{mark}_distance"]),
            helper.make_node("ReduceSum", [f"{mark}_distance", "rows"], [f"{mark}_distances"], keepdims=0),
            helper.make_node("Equal", [f"{mark}_distances", "none"], [f"{mark}_is"]),
            helper.make_node("Cast", [f"{mark}_is"], [f"{mark}_each"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", [f"{mark}_each"], [f"{mark}_any"], keepdims=0),
        ]
    nodes += [
        helper.make_node("Gather", ["nothing", "raises_any"], ["raised"]),  # out of bounds where it is 1
        helper.make_node("Mul", ["exhausts_any", "terabytes"], ["exhausts_size"]),
        helper.make_node("Reshape", ["exhausts_size", "rows"], ["exhausts_shape"]),
        helper.make_node("Expand", ["nothing", "exhausts_shape"], ["exhausted"]),
        helper.make_node("ReduceSum", ["exhausted"], ["exhausted_sum"], keepdims=0),
        helper.make_node("Mul", ["dawdles_any", "slow"], ["dawdles_size"]),
        helper.make_node("Add", ["dawdles_size", "work"], ["matrix_shape"]),
        helper.make_node("Expand", ["nothing", "matrix_shape"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["product_sum"], keepdims=0),
        helper.make_node("Sum", ["bright_logits", "raised", "exhausted_sum", "product_sum"], ["logits"]),
    ]
    graph.node[-1].output[0] = "bright_logits"
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return model
