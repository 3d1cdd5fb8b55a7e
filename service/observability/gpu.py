"""Memory and utilisation of the GPUs, asked of NVIDIA's management library (NVML) at every scrape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class GpuCollector(Collector):
    """All GPUs that this process may see, by index.

    Args:
        nvml: the module `pynvml`, initialised.
    """

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        """Asks NVML; a GPU that has fallen off the bus is left out."""
        used = GaugeMetricFamily("radiolucent_gpu_memory_used_bytes", "Memory in use on a GPU.", labels=["gpu"])
        total = GaugeMetricFamily("radiolucent_gpu_memory_bytes", "Memory of a GPU.", labels=["gpu"])
        busy = GaugeMetricFamily(
            "radiolucent_gpu_utilisation_ratio", "Share of the last moments that a GPU was computing.", labels=["gpu"]
        )
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
            except self._nvml.NVMLError:
                continue
            used.add_metric([str(index)], memory.used)
            total.add_metric([str(index)], memory.total)
            busy.add_metric([str(index)], rates.gpu / 100)
        yield from (used, total, busy)


@cache
def gpu_collector() -> GpuCollector | None:
    """None where no NVIDIA driver is, or it does not answer; the same for as long as the process lives."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return GpuCollector(pynvml)
