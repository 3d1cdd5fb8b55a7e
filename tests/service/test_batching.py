from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import pytest

from service.batching import Batcher
from service.errors import DeadlinePassed, ModelFailed, Overloaded, TooManyImages
from service.types import Outputs


class Recorder:
    """Counts images a call; holds the first call until released, so that others gather."""

    def __init__(self, fail_on: int | None = None, fits: int = 100, error: Exception | None = None) -> None:
        self.calls: list[int] = []
        self.release = threading.Event()
        self.fail_on, self.fits, self.error = fail_on, fits, error or ValueError("broken")

    def run(self, images, more):
        self.release.wait(10)
        self.calls.append(len(images))
        if len(images) > self.fits or (self.fail_on is not None and images.max() == self.fail_on):
            raise self.error
        means = images.astype(np.float32).mean(axis=(1, 2))
        return Outputs(means, means[..., np.newaxis, np.newaxis])


def image(value: int):
    return np.full((4, 4), value, np.uint8)


def make(recorder: Recorder, **limits: float) -> Batcher:
    return Batcher(
        "test", recorder.run, ThreadPoolExecutor(1), **({"max_batch": 8, "max_queue": 100, "max_seconds": 60} | limits)
    )


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


def test_more_than_may_ever_wait_is_refused_for_good():
    with pytest.raises(TooManyImages, match="at most 3"):
        asyncio.run(make(Recorder(), max_queue=3).run([image(1)] * 4))


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


def run_together(batcher: Batcher, recorder: Recorder, values: list[int]):
    """One request for each value, all in one batch."""

    async def scenario():
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.run([image(value)])) for value in values]
        await asyncio.sleep(0.05)
        recorder.release.set()
        await first
        return [answer for answers in await asyncio.gather(*rest) for answer in answers]

    return asyncio.run(scenario())


def test_an_image_that_the_model_fails_on_fails_alone():
    recorder = Recorder(fail_on=200)
    answers = run_together(make(recorder), recorder, [3, 4, 200, 5, 6, 7, 8, 9])
    assert isinstance(answers[2], ModelFailed)
    assert isinstance(answers[2].__cause__, ValueError)
    assert [a.outputs.logits[0] for a in answers[:2] + answers[3:]] == [3, 4, 5, 6, 7, 8, 9]
    assert recorder.calls == [1, 8, 4, 2, 2, 1, 1, 4], "by halves"


def test_a_failed_forward_pass_fails_no_later_one():
    recorder = Recorder(fail_on=200)
    recorder.release.set()

    async def scenario():
        batcher = make(recorder)
        (failed,) = await batcher.run([image(200)])
        return failed, await batcher.run([image(7)])

    failed, (answer,) = asyncio.run(scenario())
    assert isinstance(failed, ModelFailed)
    assert answer.outputs.logits.tolist() == [7.0]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Failed to allocate memory for requested buffer")])
def test_where_memory_is_short_batches_are_smaller_for_a_while(error, monkeypatch):
    recorder = Recorder(fits=2, error=error)
    batcher = make(recorder)
    answers = run_together(batcher, recorder, list(range(2, 10)))
    assert [a.outputs.logits[0] for a in answers] == list(range(2, 10))
    assert recorder.calls == [1, 8, 4, 2, 2, 4, 2, 2]
    recorder.calls.clear()
    recorder.fits = 8
    asyncio.run(batcher.run([image(k) for k in range(4)]))
    assert recorder.calls == [2, 2]
    later = perf_counter() + 61
    monkeypatch.setattr("service.batching.perf_counter", lambda: later)
    asyncio.run(batcher.run([image(k) for k in range(4)]))
    assert recorder.calls == [2, 2, 4]


def test_an_image_too_large_for_memory_makes_no_batch_smaller():
    recorder = Recorder(fail_on=200, error=MemoryError())
    batcher = make(recorder)
    answers = run_together(batcher, recorder, [3, 200, 4, 5])
    assert [isinstance(answer, ModelFailed) for answer in answers] == [False, True, False, False]
    recorder.calls.clear()
    asyncio.run(batcher.run([image(k) for k in range(8)]))
    assert recorder.calls == [8]


def in_order(batcher: Batcher, recorder: Recorder, sizes: list[int], **options: float) -> list[int]:
    """Requests of these sizes come one after another while a batch runs; their numbers by when they are answered."""
    answered: list[int] = []

    async def ask(number: int, size: int) -> None:
        await batcher.run([image(number)] * size, **options)
        answered.append(number)

    async def scenario():
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        rest = []
        for number, size in enumerate(sizes):
            rest.append(asyncio.create_task(ask(number, size)))
            await asyncio.sleep(0.02)
        recorder.release.set()
        await first
        await asyncio.gather(*rest)

    asyncio.run(scenario())
    return answered


def test_a_small_request_overtakes_a_large_one_that_came_shortly_before():
    recorder = Recorder()
    batcher = make(recorder, max_batch=4, cost=0.02)  # the large one is due 1.92 s after it came
    assert in_order(batcher, recorder, [32, 1, 2]) == [1, 2, 0]
    assert sum(recorder.calls[:3]) <= 4, "the large one does not fit beside what is due first"


@pytest.mark.parametrize(("deadline", "due"), [(None, 1.2), (9.0, 1.2), (1.0, 0.6), (0.1, 0.0)])
def test_a_request_is_due_after_three_times_as_long_as_alone_or_as_late_as_its_deadline_lets_it(
    deadline, due, monkeypatch
):
    batcher = make(Recorder(), cost=0.1)
    monkeypatch.setattr("service.batching.perf_counter", lambda: 100.0)
    by = None if deadline is None else 100 + deadline
    assert batcher.due(4, by) == pytest.approx(100 + due)


def test_a_large_request_that_waited_until_it_was_due_is_not_overtaken():
    recorder = Recorder()
    batcher = make(recorder, max_batch=4, cost=0.0005)  # due after 12 ms, and the next comes after 20 ms
    assert in_order(batcher, recorder, [8, 1, 1]) == [0, 1, 2]


@pytest.mark.parametrize(("sizes", "short"), [([32, 1], True), ([32, 32], False), ([1, 32], False)])
def test_batches_are_short_while_small_requests_overtake_large_ones(sizes, short, monkeypatch):
    recorder = Recorder()
    batcher = make(recorder, max_batch=32, cost=0.02)  # an instant, really: it is taken for less with every batch
    in_order(batcher, recorder, sizes)
    assert (max(recorder.calls) < 16) is short
    later = perf_counter() + 2.1
    monkeypatch.setattr("service.batching.perf_counter", lambda: later)
    assert batcher.most == 32


def test_a_batch_takes_no_longer_than_it_may():
    recorder = Recorder()
    recorder.release.set()
    asyncio.run(make(recorder, max_batch=64, max_seconds=0.1, cost=0.025).run([image(1)] * 10))
    assert recorder.calls[0] == 4


async def rest_of(batcher: Batcher) -> float:
    """What is left of the backlog when all is answered: the last batch leaves it shortly after its answers."""
    end = perf_counter() + 10
    while batcher.ahead() and perf_counter() < end:
        await asyncio.sleep(0.01)
    return batcher.ahead()


def test_what_comes_too_late_for_its_deadline_is_not_computed():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder)
        first = asyncio.create_task(batcher.run([image(1)]))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batcher.run([image(2)] * 3, deadline=perf_counter() + 0.05))
        patient = asyncio.create_task(batcher.run([image(3)], deadline=perf_counter() + 60))
        await asyncio.sleep(0.1)
        recorder.release.set()
        await first
        with pytest.raises(DeadlinePassed):
            await late
        return await patient, await rest_of(batcher)

    (answer,), rest = asyncio.run(scenario())
    assert rest == 0
    assert answer.outputs.logits[0] == 3
    assert recorder.calls == [1, 1]


def test_the_backlog_is_what_waits_and_runs_and_ends_at_nothing():
    recorder = Recorder()

    async def scenario():
        batcher = make(recorder, cost=0.01)
        first = asyncio.create_task(batcher.run([image(1)]))
        second = asyncio.create_task(batcher.run([image(2)] * 4))
        await asyncio.sleep(0.05)
        waiting = batcher.ahead()
        recorder.release.set()
        await first
        await second
        return waiting, await rest_of(batcher)

    assert asyncio.run(scenario()) == (pytest.approx(0.05), 0)
