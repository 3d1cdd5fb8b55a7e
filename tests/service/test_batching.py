from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.batching import Batcher
from service.errors import Overloaded
from service.types import Outputs


class Recorder:
    """Counts images a call; holds the first call until released, so that others gather."""

    def __init__(self, fail_on: int | None = None) -> None:
        self.calls: list[int] = []
        self.release = threading.Event()
        self.fail_on = fail_on

    def run(self, images, more):
        self.release.wait(10)
        self.calls.append(len(images))
        if self.fail_on is not None and images.max() == self.fail_on:
            raise ValueError("broken")
        means = images.astype(np.float32).mean(axis=(1, 2))
        return Outputs(means, means[..., np.newaxis, np.newaxis])


def image(value: int):
    return np.full((4, 4), value, np.uint8)


def make(recorder: Recorder, **limits: int) -> Batcher:
    return Batcher("test", recorder.run, ThreadPoolExecutor(1), **({"max_batch": 8, "max_queue": 100} | limits))


def test_requests_that_wait_share_the_next_forward_pass_in_order():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder)
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.run([image(10 * k), image(10 * k + 1)])) for k in range(1, 4)]
        await asyncio.sleep(0.05)
        recorder.release.set()
        return await first, await asyncio.gather(*rest)

    first, rest = asyncio.run(scenario())
    assert recorder.calls == [1, 6]
    assert first[0].outputs.logits.tolist() == [1.0]
    assert [[a.outputs.logits[0] for a in answers] for answers in rest] == [[10, 11], [20, 21], [30, 31]]
    assert {a.batch for answers in rest for a in answers} == {6}


def test_a_large_request_is_split_by_the_largest_batch():
    recorder = Recorder()
    recorder.release.set()
    answers = asyncio.run(make(recorder, max_batch=4).run([image(k) for k in range(10)]))
    assert recorder.calls == [4, 4, 2]
    assert [a.outputs.logits[0] for a in answers] == list(range(10))


def test_a_request_that_does_not_fit_begins_the_next_batch():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder, max_batch=4)
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.run([image(10 * k)] * size)) for k, size in enumerate((3, 2, 1, 6), 1)]
        await asyncio.sleep(0.05)
        recorder.release.set()
        await first
        return await asyncio.gather(*rest)

    answers = asyncio.run(scenario())
    assert recorder.calls == [1, 3, 3, 4, 2]
    assert [{a.batch for a in request} for request in answers] == [{3}, {3}, {3}, {4, 2}]
    assert [{a.outputs.logits[0] for a in request} for request in answers] == [{10}, {20}, {30}, {40}]


def test_a_full_queue_refuses_whole_requests():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder, max_queue=3)
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.run([image(2), image(3)]))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await batcher.run([image(4), image(5)])
        recorder.release.set()
        return await asyncio.gather(first, second)

    first, second = asyncio.run(scenario())
    assert len(first) == 1
    assert len(second) == 2
    assert sum(recorder.calls) == 3


def test_what_a_client_gave_up_is_not_computed():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder)
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.run([image(2)] * 3))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.05)
        recorder.release.set()
        await first
        return await batcher.run([image(5)])

    answers = asyncio.run(scenario())
    assert answers[0].outputs.logits.tolist() == [5.0]
    assert sum(recorder.calls) == 2


def test_a_failed_forward_pass_fails_its_requests_and_no_later_one():
    recorder = Recorder(fail_on=200)
    recorder.release.set()

    async def scenario():
        batcher = make(recorder)
        with pytest.raises(ValueError, match="broken"):
            await batcher.run([image(200)])
        return await batcher.run([image(7)])

    assert asyncio.run(scenario())[0].outputs.logits.tolist() == [7.0]
