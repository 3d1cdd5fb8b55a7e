"""How many worker processes there are, and what of the machine each of them has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.settings import Settings

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CORES = 4  # that one worker's requests keep busy: see docs/scaling.md
_DECODERS = 4


def count_workers(settings: Settings, devices: Sequence[str], cores: int) -> int:
    """`settings.workers`, or where that is `auto` one for each CUDA device, without any one for every four cores."""
    if settings.workers != "auto":
        return settings.workers
    return len(devices) if devices and settings.device != "cpu" else max(1, cores // _CORES)


def worker_settings(settings: Settings, workers: int, cores: int) -> Settings:
    """The settings of one of so many workers: threads that are not set are its part of the cores, at least one."""
    each = max(1, cores // workers)
    return settings.model_copy(
        update={
            "threads": settings.threads or each,
            "decode_threads": settings.decode_threads or min(_DECODERS, each),
        }
    )


def device_of(worker: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """The variable that shows a worker its CUDA device: several take them in turn, one alone has all of them.

    Args:
        worker: its number, from 1.
        workers: how many there are.
        devices: as `cuda_devices`.
    """
    if workers == 1 or not devices:
        return {}
    return {_VISIBLE: devices[(worker - 1) % len(devices)]}


def cuda_devices(environment: Mapping[str, str], driver: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """Names of the CUDA devices that may be used: `CUDA_VISIBLE_DEVICES` where it is set, else all of the driver's."""
    if (named := environment.get(_VISIBLE)) is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    return tuple(map(str, range(len(list(driver.iterdir()))))) if driver.is_dir() else ()


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
