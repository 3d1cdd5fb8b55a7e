"""A graph on a CUDA device: a session of ONNX Runtime for each of a few batch sizes.

cuDNN plans a convolution for one shape of its input, and ONNX Runtime keeps only the last plan of each node: a session
whose batches change their size plans all its convolutions anew at every change, which takes tens of times as long as
the forward pass (docs/gpu.md has figures). So every size has a session of its own, planned when it is opened; a batch
is filled up to the next size, and one beyond the largest is done in pieces.

All sessions of a process take their memory from one arena on the device, so that together they keep what the largest
batch needs. What one of them has freed the next may get before the device is done with it: they run by turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.memory import arena_limits
from service.observability import logger

SIZES = (1, 8, 16, 32, 64)
_TURN = Lock()
_PROVIDER = "CUDAExecutionProvider"
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class Session(Protocol):
    """What is asked of a session of ONNX Runtime."""

    def run(
        self,
        outputs: Sequence[str] | None,
        inputs: Mapping[str, NDArray[np.generic]],
        options: Any = None,  # noqa: ANN401 - onnxruntime.RunOptions, which has no type
        /,
    ) -> Sequence[Any]:
        """Outputs by the order of their names, all where None is given; axis 0 of all that goes in and out is N."""
        ...


@dataclass(frozen=True, slots=True)
class FixedSizes:
    """Sessions of one graph by the images of their batches, in ascending order; may be called from any thread."""

    sessions: Mapping[int, Session]

    def run(
        self,
        outputs: Sequence[str] | None,
        inputs: Mapping[str, NDArray[np.generic]],
        options: Any = None,  # noqa: ANN401 - as above
        /,
    ) -> Sequence[Any]:
        """See `Session`."""
        count = len(next(iter(inputs.values())))
        largest = max(self.sessions)
        pieces = [
            self._piece(outputs, {name: value[start : start + largest] for name, value in inputs.items()}, options)
            for start in range(0, max(1, count), largest)
        ]
        return pieces[0] if len(pieces) == 1 else [np.concatenate(rows) for rows in zip(*pieces, strict=True)]

    def _piece(
        self,
        outputs: Sequence[str] | None,
        inputs: Mapping[str, NDArray[np.generic]],
        options: Any,  # noqa: ANN401 - as above
    ) -> Sequence[Any]:
        count = len(next(iter(inputs.values())))
        size = next(size for size in self.sessions if size >= count)
        filled = {name: _filled(value, size) for name, value in inputs.items()}
        with _TURN:
            found = self.sessions[size].run(outputs, filled, options)
        return [value[:count] for value in found]


def open_on_cuda(graph: Path, options: Any, *, sizes: Sequence[int] = SIZES, tf32: bool) -> FixedSizes | None:  # noqa: ANN401
    """Open a graph for batches of these sizes, planned.

    Args:
        graph: file of an ONNX graph; axis 0 of its inputs and outputs is N, and no other axis varies.
        options: onnxruntime.SessionOptions, which has no type.
        sizes: images of a batch, in ascending order.
        tf32: round what float32 convolutions and products multiply to TensorFloat-32 (10 bits of fraction).

    Returns:
        None where ONNX Runtime cannot use a CUDA device here.
    """
    import onnxruntime

    if not _share_arena():
        return None
    # The exhaustive search for algorithms, the default, takes longer and found none that is faster (docs/gpu.md).
    chosen = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1" if tf32 else "0"}

    def planned(size: int) -> Session:
        with _TURN:
            session = onnxruntime.InferenceSession(
                graph, options, providers=[(_PROVIDER, chosen), "CPUExecutionProvider"]
            )
            session.run(None, {each.name: _zeros(each, size) for each in session.get_inputs()})
        return session

    return FixedSizes({size: planned(size) for size in sizes})


@cache
def _share_arena() -> bool:
    """Have the sessions that ask for it (`session.use_env_allocators`) use one arena on the device, made here.

    Returns whether there is a device: without the driver or CUDA's libraries there is none.
    """
    import onnxruntime

    onnxruntime.preload_dlls()
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cuda", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    try:
        onnxruntime.create_and_register_allocator_v2(_PROVIDER, where, {}, arena_limits())
    except RuntimeError as error:
        logger.warning("no CUDA device can be used: %s", error)
        return False
    return True


def has_cuda() -> bool:
    """Whether an NVIDIA driver is here; asking ONNX Runtime without one prints errors."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()


def _zeros(given: Any, size: int) -> NDArray[np.generic]:  # noqa: ANN401 - onnxruntime.NodeArg, which has no type
    return np.zeros((size, *given.shape[1:]), _TYPES[given.type])


def _filled(value: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    if len(value) == size:
        return value
    filled = np.zeros((size, *value.shape[1:]), value.dtype)
    filled[: len(value)] = value
    return filled
