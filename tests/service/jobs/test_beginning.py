"""A job begins when it is stored, not when a worker happens to look."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import numpy as np
from bright import SIDE, png, write_bundle_into

from service.composing import Wish
from service.jobs.store import JobStore
from service.jobs.worker import JobWorker, request_of
from service.pipeline import Pipeline
from service.settings import Settings

FILES = [("a.png", png(np.random.default_rng(0).integers(60, 256, (SIDE, SIDE), np.uint8)))]


def test_a_resting_worker_begins_with_a_job_that_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr("service.idle._LOOK_S", 3600.0)
    write_bundle_into(tmp_path / "models", "bright")
    pipeline = Pipeline(Settings(models=tmp_path / "models", threads=1, device="cpu"))

    async def scenario(store: JobStore) -> None:
        worker = JobWorker(store, pipeline)
        worker.start()
        await asyncio.sleep(0.5)  # it has looked, and rests
        job = store.add(request_of("bright", Wish()), FILES).id
        worker.look()
        until = time.monotonic() + 60
        while store.get(job).status != "done":
            assert time.monotonic() < until, "the worker rests"
            await asyncio.sleep(0.05)
        await worker.stop()

    with closing(JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", lease=15, ttl=60, limit=10)) as store:
        asyncio.run(scenario(store))
