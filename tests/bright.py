"""A small real bundle: an ONNX graph with a known closed form, written the way that an exporter does."""

from __future__ import annotations

import json
import shutil
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


GATE = {
    "scores": [{"name": "glare", "doubtful": 0.6, "refused": 0.8, "reason": "brighter than the images that it knows"}],
    "type": {"not_assessed": 0.7, "reason": "too dark to tell bright from middle"},
    "fitted_on": "nothing",
}
CONFORMAL = {
    "error_rate": 0.1,
    "labels": {"bright": 0.35, "dark": 0.3, "middle": 0.2},
    "findings": {"light": {"absent_to": 0.66, "present_from": 0.7}},
    "fitted_on": "nothing",
    "images": 0,
    "groups": 0,
}


def gated_graph() -> onnx.ModelProto:
    """The same with the output `gate`: mean brightness, and what is missing of 1."""
    model = bright_graph()
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["unit", "axes"], ["brightness"], keepdims=0),
            helper.make_node("Sub", ["one", "brightness"], ["darkness"]),
            helper.make_node("Concat", ["brightness", "darkness"], ["gate"], axis=1),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "one"))
    model.graph.output.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["N", 2]))
    return model


def write_gated_into(models: Path, name: str, **limits: object) -> Path:
    """Writes `models/<name>` with int8 and fp16 graphs and a gate; `limits` are further fields of its manifest."""
    folder = write_bundle_into(models, name, gated_graph())
    with np.load(folder / "golden.npz") as golden:
        arrays = {key: golden[key] for key in golden.files}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (arrays["gate"],) = session.run(["gate"], {"images": arrays["images"]})
    np.savez(folder / "golden.npz", **arrays, **{f"int8.{key}": arrays[key] for key in ("logits", "cam", "gate")})
    for graph in ("int8.onnx", "fp16.onnx"):
        shutil.copy(folder / "model.onnx", folder / graph)
    files = {file: sha256(folder / file) for file in ("model.onnx", "int8.onnx", "fp16.onnx", "golden.npz")}
    (folder / MANIFEST).write_text(json.dumps(manifest(name, files) | {"gate": GATE} | limits))
    return folder


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
    logits, cam = session.run(["logits", "cam"], {"images": images})
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
