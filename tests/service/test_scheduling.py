"""The engine's thread with a real graph: who goes first, who stands aside, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bright import offer, png
from prometheus_client import REGISTRY

from service import scheduling
from service.bundle import read_bundle
from service.composing import Wish
from service.engine import Engine, Stop, Stopped, open_graph
from service.errors import Cancelled
from service.explainers.base import Options
from service.pipeline import Pipeline
from service.scheduling import EXPLANATION, PATIENCE, PREDICTION, EngineThread, Lane, Waiting
from service.settings import Settings
from service.uploads import Upload

BUNDLE = Path(__file__).resolve().parents[2] / "models" / "brain-mri-resnet50"
SLOW = np.zeros((48, 224, 224, 1), np.uint8)  # a second or more


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_graph(read_bundle(BUNDLE).graph, threads=1, device="cpu")


def test_a_forward_pass_ends_where_it_is_asked_to_and_the_next_is_whole(engine):
    stop = Stop()
    threading.Timer(0.1, stop.ask).start()
    begin = time.perf_counter()
    with pytest.raises(Stopped):
        engine.run(SLOW, stop=stop)
    stopped = time.perf_counter() - begin
    begin = time.perf_counter()
    engine.run(SLOW, stop=Stop())
    assert stopped < (time.perf_counter() - begin) / 2
    with pytest.raises(Stopped):
        engine.run(SLOW[:1], stop=stop)


def test_what_a_graph_raises_by_itself_is_no_stop(engine):
    stop = Stop()
    stop.ask()
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        engine.run(SLOW[:1, :100], stop=Stop())
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT|Got invalid dimensions"):
        engine.run(SLOW[:1, :100], stop=stop)


def test_slow_work_stands_aside_and_is_done_again(engine):
    thread = EngineThread()
    slow, order = Waiting(engine, Lane(thread, EXPLANATION), lambda: False), []
    begun = threading.Event()

    def explain() -> None:
        begun.set()
        found = slow.logits(SLOW[..., 0])
        order.append("slow")
        assert found.shape == (len(SLOW), 4)

    explaining = threading.Thread(target=explain)
    explaining.start()
    begun.wait(5)
    time.sleep(0.1)  # it runs
    with thread.urgent():
        begin = time.perf_counter()
        Lane(thread, PREDICTION).submit(engine.run, SLOW[:1]).result()
        waited = time.perf_counter() - begin
        order.append("urgent")
        time.sleep(0.3)  # the answer is on its way still: nothing slow begins
        assert order == ["urgent"]
    explaining.join()
    assert order == ["urgent", "slow"]
    begin = time.perf_counter()
    engine.run(SLOW)
    assert waited < (time.perf_counter() - begin) / 2


def test_urgent_work_without_end_does_not_keep_slow_work_for_ever(engine, monkeypatch):
    monkeypatch.setattr(scheduling, "PATIENCE", 0.3)
    thread = EngineThread()
    with thread.urgent():
        begin = time.monotonic()
        Waiting(engine, Lane(thread, EXPLANATION), lambda: False).logits(SLOW[:1, ..., 0])
        assert time.monotonic() - begin > 0.3


def until_stopped(stop: Stop, seconds: float) -> None:
    """A step of so many seconds, which ends as ONNX Runtime does where it is stopped."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stop.asked:
            raise Stopped
        time.sleep(0.001)


def test_what_still_waits_at_its_deadline_runs_in_spite_of_urgent_work():
    thread = EngineThread()
    lane = Lane(thread, EXPLANATION)
    with thread.urgent():
        begin = time.monotonic()
        lane.submit_stoppable(lambda stop: until_stopped(stop, 0.01), begin + 0.3).result()
        assert 0.3 < time.monotonic() - begin < PATIENCE


def test_haste_keeps_one_in_a_hundred_requests_waiting_and_patience_ends_all_the_same(monkeypatch):
    """Requests come without a gap for a step: whom haste keeps waiting is seen by steps that end while one is there."""
    monkeypatch.setattr(scheduling, "PATIENCE", 1.5)
    thread, over, ended = EngineThread(), threading.Event(), list[float]()
    lane = Lane(thread, EXPLANATION)

    def hurried() -> None:
        while not over.is_set():
            lane.submit_stoppable(lambda stop: until_stopped(stop, 0.01), time.monotonic()).result()
            ended.append(time.monotonic())

    with thread.urgent(), ThreadPoolExecutor(1) as threads:
        begin = time.monotonic()
        working = threads.submit(hurried)
        time.sleep(0.3)
        assert len(ended) == 1  # at once; who comes next must be spared first
        for _ in range(99):
            with thread.urgent():
                time.sleep(0.001)
        assert len(ended) == 1
        with thread.urgent():
            time.sleep(0.1)
        assert len(ended) == 2  # which keeps two waiting
        for _ in range(199):
            with thread.urgent():
                time.sleep(0.001)
        assert len(ended) == 2
        asked = ended[-1]
        over.set()
        working.result()
        assert time.monotonic() - begin > 1.5
    assert len(ended) == 3
    assert ended[-1] - asked > 1.5


def test_what_began_when_nobody_was_there_is_stopped_unless_haste_may_keep_who_comes():
    thread = EngineThread()
    lane, stops = Lane(thread, EXPLANATION), list[bool]()

    def disturbed(requests: int) -> None:
        begun = threading.Event()

        def step(stop: Stop) -> None:
            begun.set()
            until = time.monotonic() + 0.3
            while not stop.asked and time.monotonic() < until:
                time.sleep(0.001)
            stops.append(stop.asked)

        running = lane.submit_stoppable(step, time.monotonic())  # in haste at once
        begun.wait(5)
        for _ in range(requests):
            with thread.urgent():
                time.sleep(0.02)
        running.result()

    disturbed(2)  # the first may be kept waiting; then so is the second, rather than that both waited for nothing
    disturbed(1)
    assert stops == [False, True]
    for _ in range(197):  # two were kept waiting; the stop spared one, and who comes next is the two hundredth
        with thread.urgent():
            pass
    disturbed(1)
    assert stops == [False, True, False]


def test_an_error_belongs_to_who_asked_and_the_thread_goes_on(engine):
    lane = Lane(EngineThread(), PREDICTION)
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 / 0).result()
    assert lane.submit(lambda: 7).result() == 7


def test_a_call_is_not_made_where_it_was_cancelled_while_it_waited_for_its_turn(engine):
    lane, release, cancelled = Lane(EngineThread(), PREDICTION), threading.Event(), threading.Event()
    view = Waiting(engine, lane, cancelled.is_set)
    lane.submit(release.wait, 10)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(view.logits, SLOW[:1, ..., 0])
        while not lane._thread._waiting:
            time.sleep(0.01)
        cancelled.set()
        release.set()
        with pytest.raises(Cancelled):
            asked.result()


def test_what_was_cancelled_before_its_turn_is_not_run():
    thread = EngineThread()
    release, ran = threading.Event(), []
    first = Lane(thread, PREDICTION).submit(release.wait, 10)
    second = Lane(thread, PREDICTION).submit(ran.append, 1)
    assert second.cancel()
    release.set()
    assert first.result()
    assert Lane(thread, PREDICTION).submit(lambda: 2).result() == 2
    assert not ran


def test_the_prediction_that_a_slow_method_begins_with_stands_aside(write_bundle):
    offer(bundle := write_bundle("bright"), "rise")
    pipeline = Pipeline(Settings(models=bundle.parent, threads=1, device="cpu"))
    image = Upload("image", png(np.arange(64, dtype=np.uint8).reshape(8, 8)))
    slow, quick = Wish("rise", options=Options(budget=32)), Wish("gradcam")

    def batches() -> float:
        return REGISTRY.get_sample_value("radiolucent_batch_images_count", {"model": "bright"}) or 0

    async def both() -> None:
        before = batches()
        with pipeline.on_its_way():
            waiting = asyncio.create_task(pipeline.answer("slow", "bright", [image], slow))
            await asyncio.sleep(0.2)
            assert batches() == before
            await pipeline.answer("quick", "bright", [image], quick)
            assert batches() == before + 1
        await waiting
        assert batches() == before + 2

    asyncio.run(both())
