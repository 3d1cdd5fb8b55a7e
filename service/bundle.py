"""Model bundles: the only contract between those who make models and the service that runs them.

A bundle is one folder. Its schema is in `service.manifest`; `export` writes through it.

    manifest.json   everything below, in words and digests
    weights.bin     the weights, half precision, once: the graphs name their places in it
    model.onnx      input   images   uint8   [N, H, W, 1]         prepared pixels (see PreprocessingSpec)
                    output  logits   float32 [N, K]               before the temperature
                    output  cam      float32 [N, K, h, w]         signed; what it equals is written in the manifest
                    output  gate     float32 [N, G]               where the manifest has a gate (see there)
                    and, as the manifest lists them (computed only where they are asked for):
                    output  layercam, gradcam_plusplus float32 [N, K, K, h, w]  classes on the diagonal, contrasts
                                                                  [a, b] (why a and not b) beside it
                    output  principal float32 [N, h, w]          first principal component of the feature maps
                    output  shapley  float32 [N, K, g, g]         Shapley values as FastSHAP's explainer guesses them
    gradients.onnx  input   pixels   float32 [N, H, W, 1], weights float32 [N, K]
                    output  gradient float32 [N, H, W, 1]         of sum_k weights[k] logits[k] by the pixels
    int8.onnx       as model.onnx, quantised, with its own weights; for CPUs
    fp16.onnx       as model.onnx, computed in float16 up to the last feature maps; for GPUs
    golden.npz      images uint8 [M, H, W, 1]; every output of model.onnx by name, and of int8.onnx by int8.name;
                    gradient float32 [M, H, W] of the logit of class 0
    MODEL_CARD.md   for people

The optional files are there where the manifest lists them. Bundles of task `segmentation`: see `service.segmenter`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from service.errors import BundleDigestMismatch, BundleSchemaMismatch
from service.manifest import Described, Manifest
from service.validation import faults_of

MANIFEST, GRAPH, GOLDEN, CARD = "manifest.json", "model.onnx", "golden.npz", "MODEL_CARD.md"
WEIGHTS, GRADIENTS, INT8, FP16 = "weights.bin", "gradients.onnx", "int8.onnx", "fp16.onnx"
_PIECE = 2**24  # bytes read at once: after each a thread waits for Python's lock, 5 ms where others hold it


M = TypeVar("M", bound=Described)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are what its manifest says they are."""

    path: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """Path of the ONNX graph."""
        return self.path / GRAPH

    @property
    def gradients(self) -> Path | None:
        """Path of the gradient graph, where there is one."""
        return self.path / GRADIENTS if GRADIENTS in self.manifest.files else None

    @property
    def int8(self) -> Path | None:
        """Path of the quantised graph, where there is one."""
        return self.path / INT8 if INT8 in self.manifest.files else None

    @property
    def fp16(self) -> Path | None:
        """Path of the graph that computes in float16, where there is one."""
        return self.path / FP16 if FP16 in self.manifest.files else None

    @property
    def golden(self) -> Path:
        """Path of the golden sample."""
        return self.path / GOLDEN


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_bundle(path: Path) -> Bundle:
    """Read a classifier's bundle and verify every file that its manifest lists; raises as `read_manifest`."""
    return Bundle(path, read_manifest(path, Manifest))


def read_manifest(path: Path, schema: type[M]) -> M:
    """Read the manifest of a bundle of one task, and verify every file that it lists.

    Raises:
        BundleSchemaMismatch: the manifest is missing, not JSON, of another schema version or task, or does not list the
            graph and the golden sample.
        BundleDigestMismatch: a file is missing or is not the one that was exported.
    """
    name = path.name
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        manifest = schema.model_validate(content)
    except FileNotFoundError as error:
        raise BundleSchemaMismatch(f"bundle {name}: no {MANIFEST}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleSchemaMismatch(f"bundle {name}: {MANIFEST} is not JSON") from error
    except ValidationError as error:
        raise BundleSchemaMismatch(f"bundle {name}: {faults_of(error, MANIFEST)}") from error
    missing = {GRAPH, GOLDEN} - set(manifest.files)
    if missing:
        raise BundleSchemaMismatch(f"bundle {name}: the manifest lists no {', '.join(sorted(missing))}")
    for file, digest in manifest.files.items():
        _verify(path, name, file, digest)
    return manifest


def _verify(path: Path, name: str, file: str, digest: str) -> None:
    target = path / file
    if target.parent != path:
        raise BundleSchemaMismatch(f"bundle {name}: {file} lies outside the bundle")
    if not target.is_file():
        raise BundleDigestMismatch(f"bundle {name}: {file} is missing")
    if sha256(target) != digest:
        raise BundleDigestMismatch(f"bundle {name}: {file} is not the file that was exported (SHA-256 differs)")
