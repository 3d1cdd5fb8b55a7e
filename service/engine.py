"""ONNX Runtime: prepared images in, logits and class activation maps out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.errors import GoldenSampleMismatch
from service.types import Grey8, Outputs

if TYPE_CHECKING:
    import onnxruntime

GOLDEN_TOLERANCE = 1e-3  # logits and maps; other processors and providers round differently
_TRUST_IN_CUDA = 5e-2  # reduced-precision convolutions (TF32) deviate more


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded graph. `provider` is `cpu` or `cuda`; `run` may be called from any thread."""

    session: onnxruntime.InferenceSession
    provider: str

    def run(self, images: Grey8) -> Outputs:
        """One forward pass.

        Args:
            images: uint8 `[N, H, W, 1]`, prepared as the manifest says.

        Returns:
            logits float32 `[N, K]` and maps float32 `[N, K, h, w]`.
        """
        logits, cam = self.session.run(["logits", "cam"], {"images": images})
        return Outputs(np.asarray(logits, np.float32), np.asarray(cam, np.float32))


def open_engine(bundle: Bundle, *, threads: int = 0, device: str = "auto") -> Engine:
    """Load a bundle's graph, warm it up and check it on the golden sample.

    Args:
        bundle: a verified bundle.
        threads: threads of one call on the CPU, 0 for one each core.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        GoldenSampleMismatch: this machine computes something else than the exporter did.
    """
    engine = open_graph(bundle.graph, threads=threads, device=device)
    check_golden(bundle, engine)
    return engine


def check_golden(bundle: Bundle, engine: Engine) -> float:
    """Run the golden sample; returns the largest deviation. Doubles as the warm-up.

    Raises:
        GoldenSampleMismatch: it exceeds what rounding explains.
    """
    with np.load(bundle.golden, allow_pickle=False) as golden:
        images: Grey8 = golden["images"]
        expected: list[NDArray[np.float32]] = [golden["logits"], golden["cam"]]
    outputs = engine.run(images)
    scale = max(1.0, float(np.abs(expected[1]).max()))
    found = [outputs.logits, outputs.cam]
    deviation = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)) / scale
    if not deviation <= (GOLDEN_TOLERANCE if engine.provider == "cpu" else _TRUST_IN_CUDA):
        name = bundle.path.name
        raise GoldenSampleMismatch(f"bundle {name}: the golden sample deviates by {deviation:.2g} on {engine.provider}")
    return deviation


def open_graph(graph: Path, *, threads: int = 0, device: str = "auto") -> Engine:
    """Load a graph that no bundle vouches for yet; arguments as in `open_engine`."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and _has_cuda():
        onnxruntime.preload_dlls()
        wanted.insert(0, "CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(graph, options, providers=wanted)
    provider = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    if device == "cuda" and provider != "cuda":
        raise RuntimeError("RADIOLUCENT_DEVICE is cuda, but ONNX Runtime cannot use a CUDA device here")
    return Engine(session, provider)


def _has_cuda() -> bool:
    """Whether an NVIDIA driver is here; asking ONNX Runtime without one prints errors."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
