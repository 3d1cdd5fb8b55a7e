"""Who is let in, by what is due before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import pytest

from service.admission import Admission
from service.batching import Batcher
from service.errors import Overloaded
from service.types import Outputs

IMAGE = np.zeros((4, 4), np.uint8)
COST = 0.1  # seconds an image is taken to need


def while_waiting(sizes: list[int], look: Callable[[Admission], None], max_wait: float = 10.0) -> None:
    """Look while requests of these sizes wait, in this order, behind an image that is computed."""
    release = threading.Event()

    def run(images, _more):
        release.wait(60)
        return Outputs(np.zeros((len(images), 2), np.float32), np.zeros((len(images), 2, 1, 1), np.float32))

    async def scenario():
        with ThreadPoolExecutor(1) as engine:
            batcher = Batcher("test", run, engine, max_batch=8, max_queue=500, cost=COST)
            tasks = []
            for size in [1, *sizes]:
                tasks.append(asyncio.create_task(waiting(batcher.run([IMAGE] * size))))
                await asyncio.sleep(0)
            try:
                look(Admission([batcher], [], max_wait))
            finally:
                release.set()
                await asyncio.gather(*tasks)

    async def waiting(request: Awaitable[object]) -> None:
        await request

    asyncio.run(scenario())


def test_a_small_request_with_a_deadline_is_let_in_beside_a_large_one_that_it_overtakes():
    def look(admission: Admission) -> None:
        admission.admit(perf_counter() + 1)
        with pytest.raises(Overloaded):
            admission.admit(perf_counter() + 1, files=8)  # which would take it alone; the one that runs is ahead

    while_waiting([64], look)


def test_it_is_refused_where_as_much_is_due_before():
    def look(admission: Admission) -> None:
        with pytest.raises(Overloaded) as refused:
            admission.admit(perf_counter() + 1)
        assert refused.value.retry_after == pytest.approx(65 * COST)

    while_waiting([1] * 64, look)


def test_large_requests_wait_for_large_ones_and_small_ones_do_not():
    def look(admission: Admission) -> None:
        admission.admit(None)
        with pytest.raises(Overloaded):
            admission.admit(None, files=64)

    while_waiting([64, 64], look)


def idle(cost: float) -> Batcher[Outputs]:
    def run(images, _more):
        raise AssertionError("nothing is asked")

    return Batcher("test", run, ThreadPoolExecutor(1), max_batch=8, max_queue=9, cost=cost)


def test_files_that_are_read_count_until_they_are():
    admission = Admission([idle(COST)], [], 1)
    with admission.reading(64) as arriving:
        admission.admit(None)
        with pytest.raises(Overloaded):
            admission.admit(None, files=64)
        arriving.left = 2
        admission.admit(None, files=64)
    assert admission.ahead() == 0


def test_an_image_is_taken_to_need_what_the_slowest_classifier_needs_and_not_what_an_outline_does():
    assert Admission([idle(0.01), idle(COST)], [idle(3.0)], 1).cost == COST


def test_what_answers_take_beside_is_learnt():
    admission = Admission([idle(COST)], [], 1)
    admission.admit(perf_counter() + 5)
    for _ in range(100):
        admission.took(10.0)
    with pytest.raises(Overloaded):
        admission.admit(perf_counter() + 5)
