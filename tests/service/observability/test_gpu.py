"""NVML is stubbed at its boundary: where this was written there is no GPU. The names are checked against pynvml."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from service.observability.gpu import GpuCollector, gpu_collector


def nvml(gpus: list[tuple[int, int, int] | None]) -> SimpleNamespace:
    """Used and total bytes and utilisation in percent of each; None is one that has fallen off the bus."""

    def handle(index: int) -> tuple[int, int, int]:
        found = gpus[index]
        if found is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return found

    stub = SimpleNamespace(
        NVMLError=pynvml.NVMLError,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=h[0], total=h[1]),
        nvmlDeviceGetUtilizationRates=lambda h: SimpleNamespace(gpu=h[2]),
    )
    assert all(hasattr(pynvml, name) for name in vars(stub))
    return stub


def test_memory_and_utilisation_of_every_gpu_that_answers():
    collector = GpuCollector(nvml([(3, 80, 25), None, (0, 40, 100)]))
    found = {(m.name, s.labels["gpu"]): s.value for m in collector.collect() for s in m.samples}
    assert found == {
        ("radiolucent_gpu_memory_used_bytes", "0"): 3,
        ("radiolucent_gpu_memory_used_bytes", "2"): 0,
        ("radiolucent_gpu_memory_bytes", "0"): 80,
        ("radiolucent_gpu_memory_bytes", "2"): 40,
        ("radiolucent_gpu_utilisation_ratio", "0"): 0.25,
        ("radiolucent_gpu_utilisation_ratio", "2"): 1.0,
    }


def test_there_is_no_collector_where_no_driver_is(monkeypatch):
    gpu_collector.cache_clear()
    monkeypatch.setattr("service.observability.gpu.Path.exists", lambda path: False)
    try:
        assert gpu_collector() is None
    finally:
        gpu_collector.cache_clear()


def test_a_driver_that_does_not_answer_is_none(monkeypatch):
    def broken() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    gpu_collector.cache_clear()
    monkeypatch.setattr("service.observability.gpu.Path.exists", lambda path: True)
    monkeypatch.setattr(pynvml, "nvmlInit", broken)
    try:
        assert gpu_collector() is None
    finally:
        gpu_collector.cache_clear()


@pytest.mark.parametrize("gpus", [[], [None]])
def test_without_gpus_the_metrics_are_empty(gpus):
    assert [m.samples for m in GpuCollector(nvml(gpus)).collect()] == [[], [], []]
