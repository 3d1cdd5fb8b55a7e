"""A small real bundle of task `segmentation`: the mask is the brightness, a fifth of the contrast at the edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from bright import manifest as classifier_manifest
from onnx import TensorProto, helper, numpy_helper

from service.bundle import MANIFEST, sha256

SIDE = 32


def brightness_graph() -> onnx.ModelProto:
    """Probability = grey level / 255."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["pixels", "last"], ["flat"]),
        helper.make_node("Div", ["flat", "scale"], ["mask"]),
    ]
    constants = {"scale": np.array(255.0, np.float32), "last": np.array([3], np.int64)}
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write_spots_into(models: Path, name: str) -> Path:
    """Writes `models/<name>`, which outlines `light` from a probability of 0.5 on."""
    folder = models / name
    folder.mkdir(parents=True)
    onnx.save(brightness_graph(), folder / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (mask,) = session.run(["mask"], {"images": images})
    np.savez(folder / "golden.npz", images=images, mask=mask)
    write_manifest(folder)
    return folder


def write_manifest(folder: Path) -> None:
    """What the folder holds, with the digests that the files have now."""
    files = {file: sha256(folder / file) for file in ("model.onnx", "golden.npz")}
    content = classifier_manifest(folder.name, files)
    own = {"labels", "findings", "graph", "explanations", "default_explanation", "temperature"}
    content = {key: value for key, value in content.items() if key not in own} | {
        "task": "segmentation",
        "label": {"name": "light", "display": "Light"},
        "operating_point": {"threshold": 0.5, "chosen_by": "the test"},
        "opset": 18,
        "weights": "float32",
    }
    (folder / MANIFEST).write_text(json.dumps(content))
