"""How many worker processes there are, and what of the machine each of them has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.settings import Settings

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CORES = 4  # that one worker's requests keep busy: see docs/scaling.md
_ROOM = 8 * 2**30  # bytes of a GPU for one worker with the shipped models: see docs/gpu.md
_DECODERS = 4


def count_workers(settings: Settings, devices: Sequence[str], cores: int) -> int:
    """`settings.workers`, or where that is `auto` one for every four cores.

    With CUDA devices there is at least one for each, and no more than fit into each one's memory.
    """
    if settings.workers != "auto":
        return settings.workers
    wanted = max(1, cores // _CORES)
    if not devices or settings.device == "cpu":
        return wanted
    rooms = [max(1, device_memory(device) // _ROOM) for device in devices]
    fitting = min(turn + room * len(devices) for turn, room in enumerate(rooms))  # see `device_of`
    return max(len(devices), min(wanted, fitting))


def device_memory(device: str) -> int:
    """Bytes of a CUDA device, by its number or identifier (UUID); 0 where NVML does not know it."""
    import pynvml

    try:
        pynvml.nvmlInit()
        number = device.isdecimal()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device)) if number else pynvml.nvmlDeviceGetHandleByUUID(device)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return 0


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


def cores_here(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores that this process may use, at least one; a container's limit (cgroup v2) is one of its time."""
    cores = len(os.sched_getaffinity(0))
    if not limit.is_file():
        return cores
    quota, period = limit.read_text().split()
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
