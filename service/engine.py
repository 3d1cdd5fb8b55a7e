"""ONNX Runtime: prepared images in; logits, maps and gradients out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.cuda import SIZES, Session, has_cuda, open_on_cuda
from service.errors import GoldenSampleMismatch
from service.manifest import Reduced
from service.memory import share_arena
from service.shared_graphs import save_to, shared_graph
from service.types import Float, Grey8, Outputs

Precision = Literal["fp32", "int8", "fp16"]
Provider = Literal["cpu", "cuda"]
_GRADIENTS = SIZES[:3]  # images of a batch on CUDA: each takes some hundred MiB
GOLDEN_TOLERANCE = 1e-3  # of the largest value; other processors and providers round differently
_TRUST_IN_CUDA = 5e-2  # reduced-precision convolutions (TF32) deviate more
_TRUST_IN_GRADIENTS = 5e-2  # in length: they jump where an activation lies within rounding of a kink
_TRUST_IN_FP16 = 5e-2
_TRUST_IN_INT8 = 0.15  # saturating instructions of older processors do; what goes beyond is another model


class Stopped(Exception):
    """A call ended before it had a result, because another thread asked for it."""


class Stop:
    """Ends one call of ONNX Runtime from another thread, between two nodes of its graph."""

    def __init__(self) -> None:
        self._options: Any = None
        self.asked = False

    def watch(self, options: Any) -> None:  # noqa: ANN401 - onnxruntime.RunOptions, which has no type
        """The options of the call that begins."""
        self._options = options
        options.terminate = self.asked

    def ask(self) -> None:
        """End it; from any thread."""
        self.asked = True
        if self._options is not None:
            self._options.terminate = True


@dataclass(frozen=True, slots=True)
class Engine:
    """Loaded graphs. `provider` is `cpu` or `cuda`; everything may be called from any thread."""

    session: Session
    provider: Provider
    gradients: Session | None = None
    precision: Precision = "fp32"

    def run(self, images: Grey8, more: Collection[str] = (), *, stop: Stop | None = None) -> Outputs:
        """One forward pass; only what is asked for is computed.

        Args:
            images: uint8 `[N, H, W, 1]`, prepared as the manifest says.
            more: outputs of the graph besides logits and cam.
            stop: ends it early.

        Returns:
            logits float32 `[N, K]`, maps float32 `[N, K, h, w]`, and `more` by name.

        Raises:
            Stopped: by `stop`.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        logits, cam, *others = _run(self.session, ["logits", "cam", *more], {"images": images}, options, stop)
        found = {name: np.asarray(value, np.float32) for name, value in zip(more, others, strict=True)}
        return Outputs(np.asarray(logits, np.float32), np.asarray(cam, np.float32), found)

    def logits(self, images: Grey8, *, stop: Stop | None = None) -> Float:
        """Logits float32 `[M, K]` of images uint8 `[M, H, W]`; `stop` as in `run`."""
        return self.run(images[..., None], stop=stop).logits

    def gradient(self, pixels: Float, weights: Float, *, stop: Stop | None = None) -> Float:
        """The gradient of `weights . logits` by the pixels.

        On the CPU memory is given back after every call: it is several times what a prediction needs.

        Args:
            pixels: float32 `[M, H, W]`, grey levels 0..255; they may lie between and beyond.
            weights: float32 `[M, K]`.
            stop: ends it early.

        Returns:
            float32 `[M, H, W]`, logits per grey level.

        Raises:
            RuntimeError: the bundle has no gradient graph.
            Stopped: by `stop`.
        """
        if self.gradients is None:
            raise RuntimeError("the bundle has no gradient graph")
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self.provider == "cpu":
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        inputs = {"pixels": pixels[..., None], "weights": weights}
        (gradient,) = _run(self.gradients, ["gradient"], inputs, options, stop)
        return np.asarray(gradient, np.float32)[..., 0]


def _run(
    session: Session,
    outputs: list[str],
    inputs: Mapping[str, NDArray[np.generic]],
    options: Any,  # noqa: ANN401 - as above
    stop: Stop | None,
) -> Sequence[Any]:
    if stop is None:
        return session.run(outputs, inputs, options)
    stop.watch(options)
    try:
        return session.run(outputs, inputs, options)
    except Exception as error:
        if stop.asked and "terminate flag" in str(error):  # ONNX Runtime has no class for it
            raise Stopped from None
        raise


def open_engine(
    bundle: Bundle,
    *,
    threads: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    gradients: bool = True,
    shared: Path | None = None,
) -> Engine:
    """Load a bundle's graphs, warm them up and check them on the golden sample.

    Args:
        bundle: a verified bundle.
        threads: threads of one call on the CPU, 0 for one each core.
        device: `auto`, `cpu` or `cuda`.
        precision: `fp32`, `int8`, `fp16`, or `auto`: int8 on a CPU and fp16 on CUDA, where the bundle has it and its
            golden sample is reproduced. int8 always runs on the CPU; gradients are always computed in float32.
        gradients: also load the gradient graph, where the bundle has one: it takes as much memory as the other.
        shared: folder of a server whose workers share their weights (`service.shared_graphs`).

    Raises:
        GoldenSampleMismatch: this machine computes something else than the exporter did, or the bundle has no graph of
            this precision.
    """
    opening = partial(open_graph, threads=threads, shared=shared)
    full = opening(bundle.graph, device=device)
    graph = bundle.gradients if gradients else None
    backwards = opening(graph, device=device, sizes=_GRADIENTS, tf32=False).session if graph else None
    engine = Engine(full.session, full.provider, backwards)
    reduced = _reduced(precision, full.provider)
    graph = {"int8": bundle.int8, "fp16": bundle.fp16}[reduced] if reduced else None
    if reduced and graph:
        opened = opening(graph, device="cpu" if reduced == "int8" else device)
        cheaper = Engine(opened.session, opened.provider, backwards, reduced)
        try:
            check_golden(bundle, cheaper)
        except GoldenSampleMismatch:
            if precision != "auto":
                raise
        else:
            return cheaper
    elif precision != "auto" and reduced:
        raise GoldenSampleMismatch(
            f"bundle {bundle.path.name}: the precision is to be {reduced}, and it has no {reduced} graph"
        )
    check_golden(bundle, engine)
    return engine


def _reduced(precision: str, provider: str) -> Reduced | None:
    if precision == "auto":
        return "fp16" if provider == "cuda" else "int8"
    return "int8" if precision == "int8" else "fp16" if precision == "fp16" else None


def check_golden(bundle: Bundle, engine: Engine) -> float:
    """Run the golden sample; returns the largest deviation of an output. Doubles as the warm-up.

    Outputs are checked for all its images, the gradient on CUDA for all and on a CPU for the first. Each column of the
    gate is judged by itself: it has a unit of its own.

    Raises:
        GoldenSampleMismatch: it exceeds what rounding explains, or the sample has not the gate of the manifest.
    """
    expected = read_golden(bundle)
    images: Grey8 = expected["images"].astype(np.uint8)
    prefix = "int8." if engine.precision == "int8" else ""
    manifest = bundle.manifest
    if manifest.gate and (
        f"{prefix}gate" not in expected or expected[f"{prefix}gate"].shape != (len(images), len(manifest.gate_columns))
    ):
        raise GoldenSampleMismatch(f"bundle {bundle.path.name}: the golden sample has not the gate of the manifest")
    outputs = engine.run(images, sorted({*manifest.graph.outputs, *manifest.always}))
    found = {"logits": outputs.logits, "cam": outputs.cam, **outputs.more}
    deviations = [_deviation(value, expected[prefix + name]) for name, value in found.items() if name != "gate"]
    if manifest.gate:
        columns = zip(found["gate"].T, expected[f"{prefix}gate"].T, strict=True)
        deviations += [_deviation(value, wanted) for value, wanted in columns]
    exact = {"cuda": _TRUST_IN_CUDA, "cpu": GOLDEN_TOLERANCE}[engine.provider]
    worst = max(deviations)
    trusted = {"fp32": exact, "fp16": _TRUST_IN_FP16, "int8": _TRUST_IN_INT8}[engine.precision]
    _judge(bundle, worst, trusted, engine.provider)
    if engine.gradients is None:
        return worst
    count = len(images) if engine.provider == "cuda" else 1  # a CPU rounds alike for all, and takes as long for each
    weights = np.zeros_like(outputs.logits[:count])
    weights[:, 0] = 1
    gradient, wanted = engine.gradient(images[:count, ..., 0].astype(np.float32), weights), expected["gradient"][:count]
    deviation = np.linalg.norm(gradient - wanted) / np.linalg.norm(wanted)
    _judge(bundle, float(deviation), _TRUST_IN_GRADIENTS, engine.provider)
    return worst


def read_golden(bundle: Bundle) -> dict[str, NDArray[np.float32] | Grey8]:
    """The golden sample's arrays by name."""
    with np.load(bundle.golden, allow_pickle=False) as golden:
        return {name: golden[name] for name in golden.files}


def _deviation(found: Float, expected: NDArray[np.generic]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    wanted = np.asarray(expected, np.float32)
    return float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


def _judge(bundle: Bundle, deviation: float, tolerance: float, provider: str) -> None:
    if not deviation <= tolerance:
        name = bundle.path.name
        raise GoldenSampleMismatch(f"bundle {name}: the golden sample deviates by {deviation:.2g} on {provider}")


def open_graph(
    graph: Path,
    *,
    threads: int = 0,
    device: str = "auto",
    sizes: Sequence[int] = SIZES,
    tf32: bool = True,
    shared: Path | None = None,
) -> Engine:
    """Load a graph that no bundle vouches for yet.

    Args:
        graph: file of an ONNX graph; axis 0 of its inputs and outputs is N.
        threads: as in `open_engine`; so are `device` and `shared`.
        device: see there.
        sizes: of batches on CUDA (`service.cuda`); so is `tf32`.
        tf32: see there.
        shared: see there.

    Raises:
        RuntimeError: `device` is `cuda`, and ONNX Runtime cannot use one here.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    if device != "cpu" and has_cuda() and (opened := open_on_cuda(graph, session_options(1), sizes=sizes, tf32=tf32)):
        return Engine(opened, "cuda")
    if device == "cuda":
        raise RuntimeError("RADIOLUCENT_DEVICE is cuda, but ONNX Runtime cannot use a CUDA device here")
    options = session_options(threads)
    if shared is not None and (mapped := shared_graph(graph, shared, partial(_save, graph, threads))):
        graph = mapped
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return Engine(onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), "cpu")


def session_options(threads: int) -> Any:  # noqa: ANN401 - onnxruntime.SessionOptions, which has no type
    """How every session is made; `threads` as in `open_engine`."""
    import onnxruntime

    share_arena()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin after a call take the core from decoding and encoding, and gain next to nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _save(graph: Path, threads: int, path: Path) -> None:
    import onnxruntime

    options = session_options(threads)
    save_to(options, path)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
