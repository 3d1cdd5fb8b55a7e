"""A small real bundle: an ONNX graph with a known closed form, written the way that an exporter does."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.bundle import MANIFEST, sha256

GRAPH_NAME = "model.onnx"
SIDE, CELLS = 32, 4
WEIGHT = np.array([1.0, -1.0, 0.5], np.float32)  # of brightness, for three classes
BIAS = np.array([-0.2, 0.3, 0.0], np.float32)


def bright_graph() -> onnx.ModelProto:
    """Mean brightness of 8 x 8 cells, times a weight for each class; logits are pooled maps plus a bias."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["channels_first", "scale"], ["unit"]),
        helper.make_node("AveragePool", ["unit"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["cells", "weight"], ["cam"]),
        helper.make_node("ReduceMean", ["cam", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Add", ["pooled", "bias"], ["logits"]),
    ]
    constants = {
        "scale": np.array(255.0, np.float32),
        "weight": WEIGHT.reshape(3, 1, 1, 1),
        "axes": np.array([2, 3], np.int64),
        "bias": BIAS,
    }
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["N", 3, CELLS, CELLS]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def manifest(name: str, files: dict[str, str]) -> dict[str, object]:
    return {
        "schema_version": 3,
        "id": name,
        "version": "1.0.0",
        "title": "Brightness",
        "labels": [
            {"name": "bright", "display": "Bright"},
            {"name": "dark", "display": "Dark", "healthy": True},
            {"name": "middle", "display": "Middle"},
        ],
        "findings": [
            {
                "name": "light",
                "display": "Light",
                "labels": ["bright", "middle"],
                "operating_point": {"threshold": 0.5, "chosen_by": "the test"},
            }
        ],
        "kind": {"modalities": ["MR"], "body_part": None, "description": "grey test images"},
        "preprocessing": {"field_of_view": "frame", "window": [0.0, 100.0], "margin": 0.0, "size": SIDE},
        "graph": {
            "opset": 18,
            "grid": [CELLS, CELLS],
            "outputs": [],
            "cam": "class_activation",
            "target_layer": "cells",
            "weights": "float32",
            "bias": BIAS.tolist(),
        },
        "explanations": [
            {"method": name, "exact": exact, "meaning": "brightness times weight", "source": "the test"}
            for name, exact in (("gradcam", True), ("shap", False), ("kernelshap", False), ("occlusion", True))
        ],
        "default_explanation": "gradcam",
        "temperature": 2.0,
        "provenance": {
            "network": "bright",
            "parameters": 6,
            "training_data": "none",
            "data_sha256": "0",
            "split_sha256": "0",
            "checkpoint_sha256": "0",
            "initial_weights": None,
            "epochs": 0,
        },
        "evaluation": {
            "part": "test",
            "images": 0,
            "groups": 0,
            "command": "none",
            "date": "2026-11-23",
            "metrics": {},
            "half_precision": {},
            "localisation": {},
            "shortcut": {},
        },
        "parity": [],
        "intended_use": "tests",
        "limits": [],
        "licence": "Apache-2.0",
        "files": files,
    }


def write_bundle_into(models: Path, name: str, graph: onnx.ModelProto | None = None) -> Path:
    """Writes `models/<name>`; another graph must have the same outputs."""
    folder = models / name
    folder.mkdir(parents=True)
    onnx.save(graph or bright_graph(), folder / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    logits, cam = session.run(None, {"images": images})
    np.savez(folder / "golden.npz", images=images, logits=logits, cam=cam)
    files = {file: sha256(folder / file) for file in ("model.onnx", "golden.npz")}
    (folder / MANIFEST).write_text(json.dumps(manifest(name, files)))
    return folder


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def offer(bundle: Path, method: str) -> None:
    """Adds an explanation method to the manifest."""
    file = bundle / MANIFEST
    found = json.loads(file.read_text())
    found["explanations"].append({"method": method, "exact": False, "meaning": "as it says", "source": "the test"})
    file.write_text(json.dumps(found))
