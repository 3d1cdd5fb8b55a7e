"""How the process takes memory, so that it keeps what its largest call needs, and not the sum of all that ever were.

Both must be asked before the memory is taken: `few_pools` before there are threads, `share_arena` before a graph is
loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

_M_ARENA_MAX = -8  # glibc's malloc.h
_POOLS = 2
_SAME_AS_REQUESTED = 1  # ONNX Runtime's ArenaExtendStrategy; the other one doubles what it takes each time
_THEIRS = -1  # ONNX Runtime's own choice


def few_pools(environment: Mapping[str, str] = os.environ) -> bool:
    """Have glibc's malloc serve all threads from two pools; returns whether it does.

    It makes eight for each core, a thread stays with its own, and what one has freed no other uses. In a soak of two
    minutes memory grew by 25 MiB with them and by 3 with two (one run each, side by side). Most threads wait for
    Python's lock anyway.

    Args:
        environment: whoever sets `MALLOC_ARENA_MAX` in it is obeyed instead.
    """
    if "MALLOC_ARENA_MAX" in environment or "glibc.malloc.arena_max" in environment.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # neither musl nor macOS has it, nor what it is for
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _POOLS))


@cache
def share_arena() -> None:
    """Have the sessions that ask for it (`session.use_env_allocators`) use one arena on the CPU, made here.

    Each session would keep an arena of its own, as large as its largest batch. One thread runs the graphs by turns.
    """
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(where, arena_limits())


def arena_limits() -> Any:  # noqa: ANN401 - onnxruntime.OrtArenaCfg, which has no type
    """An arena that takes no more than it is asked for."""
    import onnxruntime

    limits = {
        "max_mem": 0,  # none
        "arena_extend_strategy": _SAME_AS_REQUESTED,
        "initial_chunk_size_bytes": _THEIRS,
        "max_dead_bytes_per_chunk": _THEIRS,
    }
    return onnxruntime.OrtArenaCfg(limits)
