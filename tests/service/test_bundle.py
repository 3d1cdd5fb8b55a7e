from __future__ import annotations

import json

import numpy as np
import pytest

from service.bundle import GOLDEN, GRAPH, MANIFEST, read_bundle, sha256
from service.engine import open_engine
from service.errors import BundleDigestMismatch, BundleSchemaMismatch, GoldenSampleMismatch
from service.manifest import Manifest
from service.registry import load_models


def test_a_written_bundle_reads_back(write_bundle):
    bundle = read_bundle(write_bundle("bright"))
    assert bundle.manifest.class_names == ("bright", "dark", "middle")
    assert bundle.graph.exists()


@pytest.mark.parametrize("file", [GRAPH, GOLDEN])
def test_a_changed_file_is_refused_by_name(write_bundle, file):
    folder = write_bundle("bright")
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(BundleDigestMismatch, match=f"bundle bright: {file}"):
        read_bundle(folder)


def test_a_missing_file_is_refused(write_bundle):
    folder = write_bundle("bright")
    (folder / GRAPH).unlink()
    with pytest.raises(BundleDigestMismatch, match=r"model\.onnx is missing"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 1}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"temperature": 0}, "temperature"),
        ({"files": {"model.onnx": "0"}}, "golden"),
        ({"files": {"model.onnx": "0", "golden.npz": "0", "../x": "0"}}, "model.onnx"),
    ],
)
def test_a_manifest_of_another_schema_is_refused(write_bundle, change, words):
    folder = write_bundle("bright")
    content = json.loads((folder / MANIFEST).read_text()) | change
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises((BundleSchemaMismatch, BundleDigestMismatch), match=words):
        read_bundle(folder)


def test_a_file_outside_the_bundle_is_refused(write_bundle):
    folder = write_bundle("bright")
    content = json.loads((folder / MANIFEST).read_text())
    (folder.parent / "x").write_text("x")
    content["files"]["../x"] = sha256(folder.parent / "x")
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleSchemaMismatch, match="outside"):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_manifest_that_is_not_json_is_refused(write_bundle, content):
    folder = write_bundle("bright")
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleSchemaMismatch, match="not JSON"):
        read_bundle(folder)


def test_findings_name_labels_that_exist(write_bundle):
    content = json.loads((write_bundle("bright") / MANIFEST).read_text())
    content["findings"][0]["labels"] = ["purple"]
    with pytest.raises(ValueError, match="purple"):
        Manifest.model_validate(content)


def test_another_result_than_the_golden_one_is_refused(write_bundle):
    folder = write_bundle("bright")
    with np.load(folder / GOLDEN) as golden:
        changed = dict(golden) | {"logits": golden["logits"] + 0.1}
    np.savez(folder / GOLDEN, **changed)
    content = json.loads((folder / MANIFEST).read_text())
    content["files"][GOLDEN] = sha256(folder / GOLDEN)
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(GoldenSampleMismatch, match="bright"):
        open_engine(read_bundle(folder), device="cpu")


def test_a_refused_bundle_leaves_the_others_served(write_bundle):
    folder = write_bundle("good").parent
    (write_bundle("bad") / GRAPH).write_bytes(b"no graph")
    registry = load_models(folder, threads=1, device="cpu")
    assert list(registry.models) == ["good"]
    assert list(registry.refused) == ["bad"]
    assert "SHA-256" in registry.refused["bad"]


def test_two_bundles_with_one_id_are_not_confused(write_bundle):
    folder = write_bundle("good")
    folder.rename(folder.with_name("a"))
    write_bundle("good")
    registry = load_models(folder.parent, threads=1, device="cpu")
    assert list(registry.models) == ["good"]
    assert "another bundle" in registry.refused["good"]
