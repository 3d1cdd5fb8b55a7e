"""Figures by source, and the input that the peer is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import Answer, compare, peer_answers, peer_input
from training.datasets.class_folders import read_grey
from training.datasets.record import DatasetError, Record


def record(number: int, label: str, source: str) -> Record:
    return Record(f"{number}", label, f"p{number}", lambda: np.zeros((2, 2), np.uint8), source=source)


def test_figures_are_counted_by_source_and_model():
    records = [record(k, "glioma" if k < 3 else "no_tumor", "a") for k in range(6)]
    records += [record(k, "no_tumor", "b") for k in range(6, 10)]
    called = np.array([1, 1, 0, 0, 0, 0, 1, 0, 0, 0], np.bool_)
    rows = compare([Answer("x", called, called * 0.8), Answer("y", ~called, 1.0 - called)], records, "no_tumor")
    figures = {(row["source"], row["model"]): row for row in rows}
    a, b = figures["a", "x"], figures["b", "x"]
    assert (a["images"], a["tumours"], a["groups"]) == (6, 3, 6)
    assert a["accuracy"] == pytest.approx(5 / 6)
    assert a["low"] < 5 / 6 < a["high"]
    assert (a["sensitivity"], a["false calls"]) == (pytest.approx(2 / 3), 0.0)
    assert a["auroc"] == pytest.approx(5 / 6)
    assert (b["sensitivity"], b["false calls"], b["auroc"]) == (None, 0.25, None)
    assert figures["b", "y"]["false calls"] == 0.75


def test_the_peer_gets_the_file_as_its_package_reads_it(tmp_path: Path):
    pixels = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = peer_input(Record("a", "glioma", "a", lambda: read_grey(tmp_path / "a.png"), picture=tmp_path / "a.png"))
    assert given.shape == (1, 240, 240, 3)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given[0, 7, :, 2], np.arange(240) / 255)
    with pytest.raises(DatasetError, match="comes from none"):
        peer_input(record(1, "glioma", "a"))


def test_the_third_class_of_the_peer_is_none(tmp_path: Path):
    import onnx
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 240, 240, 3])]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])]
    # a peer that finds a tumour (the last class) in an image as bright as it is, and none otherwise
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["zero", "zero", "dark", "bright"], ["y"], axis=1),
    ]
    constants = [
        helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [1.0]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1, 1], [0.0]),
    ]
    graph = helper.make_graph(nodes, "peer", tensors, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "peer.onnx")
    records: list[Record] = []
    for name, grey in (("dark", 51), ("bright", 204)):
        Image.fromarray(np.full((30, 20), grey, np.uint8)).save(tmp_path / f"{name}.png")
        records.append(Record(name, "glioma", name, lambda: np.zeros((2, 2)), picture=tmp_path / f"{name}.png"))
    (answer,) = peer_answers(tmp_path / "peer.onnx", records)
    assert answer.called.tolist() == [False, True]
    np.testing.assert_allclose(answer.score, [0.2, 0.8], atol=1e-3)
